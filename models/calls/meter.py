"""The places where a call meets money. In this version every call is free; a meter that charges stands here later."""

from __future__ import annotations

from typing import Protocol

from models.calls.call import Call, Price


class Meter(Protocol):
    """What the call's verbs ask of whoever charges (RFC 8506: INITIAL at ``open``, TERMINATION at ``close``)."""

    async def quote(self, *, caller_id: str, callee_id: str, call_type: str) -> Price:
        """The tariff that this call would have."""
        ...

    async def open(self, call: Call) -> Call:
        """Reserve before any ring: the call with its ``hold`` and ``authorised_until``, or a refusal."""
        ...

    async def release(self, call: Call) -> None:
        """Give back what ``open`` reserved for a call that did not begin. Safe to repeat."""
        ...

    async def close(self, call: Call) -> None:
        """Settle an ended call. Called at least once, also after a crash; keyed by the call's id."""
        ...


class FreeMeter:
    """No call costs anything, and no wallet is needed."""

    def __init__(self, currency: str) -> None:
        self._price = Price(rate_per_minute_minor=0, currency=currency)

    async def quote(self, *, caller_id: str, callee_id: str, call_type: str) -> Price:
        """A rate of 0."""
        return self._price

    async def open(self, call: Call) -> Call:
        """Nothing to reserve."""
        return call

    async def release(self, call: Call) -> None:
        """Nothing to give back."""

    async def close(self, call: Call) -> None:
        """Nothing to settle."""
