"""To which devices of a person one note goes, by which tokens, and what is left after the answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from models.notify.delivery import Answered
from models.notify.ports import Note, Sent, Token
from models.notify.rules import way


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One note to all of a person's ``devices`` but those that were ``told``, by tokens that did not refuse it."""

    note: Note
    devices: Mapping[str, Sequence[Token]]
    senders: Collection[str]
    told: frozenset[str]
    refused: frozenset[str]

    def ways(self) -> list[Token]:
        """The tokens to be used now, one for each device that is left."""
        found = [
            way(self.note, tokens, senders=self.senders, refused=self.refused)
            for device_id, tokens in self.devices.items()
            if device_id not in self.told
        ]
        return [token for token in found if token is not None]

    def after(self, answers: Sequence[Answered]) -> Plan:
        """The plan with what the answers say."""
        took = {one.token.device_id for one, said in answers if said.sent is Sent.OK}
        refused = {one.token.token for one, said in answers if said.sent in (Sent.GONE, Sent.NEVER)}
        return replace(self, told=self.told | took, refused=self.refused | refused)

    def untried(self, answers: Sequence[Answered]) -> bool:
        """Whether a device has another way, to be tried at once."""
        tried = {one.token.token for one, _ in answers}
        return any(token.token not in tried for token in self.ways())
