"""A town (see ``callkit``) whose people watch one another: processes with the jobs of presence, and devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.presence import PRESENCE
from models.presence.rules import OFFLINE_AFTER, Seen
from models.presence.service import SWEEP_SECONDS
from models.presence.store import PRESENCE as LEASES
from tests.services.callkit import DEAD_AFTER_SECONDS, Process, Town

# A moment longer than a disconnect waits before it is told.
GONE_SECONDS = OFFLINE_AFTER.total_seconds() + 0.5


@dataclass(frozen=True)
class Device:
    """A device of a person with a socket at a process."""

    process: Process
    user_id: str
    device_id: str

    @property
    def presence(self) -> Any:
        return self.process.presence

    async def connect(self) -> Device:
        self.process.doors.connect(self.user_id, self.device_id)
        await self.presence.arrived(self.user_id, self.device_id)
        return self

    async def drop(self) -> None:
        """The socket is gone, and its process knows."""
        self.process.doors.disconnect(self.user_id, self.device_id)
        await self.presence.gone(self.user_id, self.device_id, self.process.town.clock.now())

    async def say(self, state: Any, conversation_id: str | None = None) -> None:
        await self.presence.say(self.user_id, self.device_id, state=state, conversation_id=conversation_id)

    async def watch(self, *user_ids: str) -> dict[str, Seen]:
        """What there is to see of these people now."""
        return dict(await self.presence.watch(self.user_id, self.device_id, user_ids))

    def told(self) -> list[tuple[str, str]]:
        """What this device was told, in order: (user, state)."""
        return [(one["userId"], one["state"]) for one in self.heard()]

    def heard(self) -> list[dict[str, Any]]:
        inbox = self.process.doors.devices.get((self.user_id, self.device_id), [])
        return [dict(letter.payload) for letter in inbox if letter.event == PRESENCE]


async def device(process: Process, user_id: str, device_id: str = "phone") -> Device:
    """A device that is connected."""
    return await Device(process, user_id, device_id).connect()


async def beat(*processes: Process) -> None:
    """Each process beats and learns of the others."""
    for process in processes:
        await process.calls.run_leases(DEAD_AFTER_SECONDS)
        await process.calls.run_orphaned(DEAD_AFTER_SECONDS)
        await process.presence.run_leases()
        await process.presence.run_orphaned(DEAD_AFTER_SECONDS, living=process.calls.living)


async def turn(*processes: Process) -> None:
    """One turn of the job that hears and tells; no time passes."""
    for process in processes:
        await process.presence.run_elsewhere()
        await process.presence.run_due()


async def pass_(town: Town, seconds: float, *processes: Process, sweep: bool = False) -> None:
    """Time passes by half seconds, with the jobs of these processes, beats included. The sweep comes only if asked."""
    for half in range(round(seconds * 2)):
        town.clock.pass_(0.5)
        if half % 4 == 3:
            await beat(*processes)
        if sweep and half % 2:
            for process in processes:
                await process.presence.run_sweep()
        await turn(*processes)


async def leases(town: Town) -> dict[str, list[tuple[str, str]]]:
    """Who has a lease at which process: user → (device, process)."""
    rows = town.db[LEASES].find({"devices": {"$ne": []}})
    return {row["_id"]: [(one["id"], one["process"]) for one in row["devices"]] async for row in rows}


def states(seen: dict[str, Seen]) -> Sequence[str]:
    return [one.state for one in seen.values()]


__all__ = ["GONE_SECONDS", "SWEEP_SECONDS", "Device", "beat", "device", "leases", "pass_", "states", "turn"]
