"""What the database was asked."""

from __future__ import annotations

from pymongo.monitoring import CommandListener, CommandStartedEvent


class Commands(CommandListener):
    """The commands of a client, in order."""

    def __init__(self) -> None:
        self.asked: list[CommandStartedEvent] = []

    @property
    def names(self) -> list[str]:
        return [event.command_name for event in self.asked]

    def started(self, event: CommandStartedEvent) -> None:
        self.asked.append(event)

    def succeeded(self, event: object) -> None:
        """Nothing to note."""

    def failed(self, event: object) -> None:
        """Nothing to note."""
