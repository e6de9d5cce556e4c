"""The sandbox's own life: what it keeps, what the buttons of its checkout page do, and what it tells us of it.

It is on the far side of the port like any gateway: nothing here knows the ledger or a payment of ours. It tells by
signed notifications through the same door as the others, again and again until one was taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from models.payments.gateway import BankAccount, PayoutAsk, PayoutState, PayState
from models.ports import Clock
from models.sandbox import rules
from models.sandbox.rules import Button, Step, Thing
from models.sandbox.store import SandboxStore

log = structlog.get_logger(__name__)

# Between two tries to tell the same.
TELL_AGAIN_SECONDS = 5

# Takes a notification: about what, the number of the fact, its word, and when it was.
Tell = Callable[[Thing, int, Step], Awaitable[None]]


async def _nobody(thing: Thing, number: int, step: Step) -> None:
    """Who tells is bound by the wiring."""


class Sandbox:
    """One per process. ``tell`` brings a notification to our own door; it raises when it was not taken."""

    def __init__(self, *, store: SandboxStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.tell: Tell = _nobody

    async def payment(self, reference: str) -> Thing | None:
        """A payment by our reference."""
        return await self._store.find(f"payment:{reference}")

    async def payout(self, reference: str) -> Thing | None:
        """A payout by our reference."""
        return await self._store.find(f"payout:{reference}")

    async def refund(self, reference: str) -> Thing | None:
        """A refund by our reference."""
        return await self._store.find(f"refund:{reference}")

    async def open(
        self, reference: str, *, amount_minor: int, currency: str, who: str, about: str, return_url: str
    ) -> bool:
        """Begin a payment. False: the reference is taken."""
        return await self._add(
            "payment",
            reference,
            amount_minor,
            currency,
            [Step(at=self._clock.now(), state=PayState.PENDING)],
            who=who,
            about=about,
            return_url=return_url,
        )

    async def give_back(self, reference: str, *, amount_minor: int, currency: str, reason: str) -> bool:
        """Refund a payment: it is done at once. False: the reference is taken."""
        done = [Step(at=self._clock.now(), state="done")]
        return await self._add("refund", reference, amount_minor, currency, done, about=reason)

    async def pay_out(self, ask: PayoutAsk) -> bool:
        """Begin a payout. False: the reference is taken."""
        steps = rules.paying_out(ask.to.account_number, self._clock.now())
        return await self._add(
            "payout",
            ask.reference,
            ask.amount_minor,
            ask.currency,
            steps,
            who=ask.to.account_name,
            about=ask.narration,
            account_number=ask.to.account_number,
        )

    async def authorize(self, payout: Thing, password: str) -> bool:
        """The one-time password of a payout that waits for it. False: it is wrong, or nothing waits (any more)."""
        if payout.steps[-1].state != PayoutState.OTP or password != rules.PASSWORD:
            return False
        now = self._clock.now()
        steps = [
            Step(at=now, state=PayoutState.PENDING),
            *rules.going_through(payout.account_number, now),
        ]
        return await self._store.go_on(payout, steps, tell_at=steps[1].at)

    @staticmethod
    def holder(account: BankAccount) -> str | None:
        """Who holds an account; None: there is none of that number, or no such bank."""
        known = any(bank.code == account.bank_code for bank in rules.BANKS)
        return rules.holder(account.account_number) if known else None

    async def press(self, reference: str, button: Button, *, seen: int) -> bool:
        """Press a button of the page that showed a payment with ``seen`` steps. False: it is not offered (any more).

        What follows is told at once, where that is possible.
        """
        found = await self.payment(reference)
        if found is None or len(found.steps) != seen:
            return False
        step = rules.pressed(found, button, self._clock.now())
        if step is None or not await self._store.go_on(found, [step], tell_at=step.at):
            return False
        try:
            await self.tell_due()
        except Exception as error:  # the job tells it again
            log.warning("the sandbox could not tell at once", error=repr(error))
        return True

    async def tell_due(self) -> int:
        """Tell what is due to be told; how much that was. Any number of processes may do this at the same time."""
        told = 0
        while True:
            now = self._clock.now()
            until = now + timedelta(seconds=TELL_AGAIN_SECONDS)
            thing = await self._store.to_tell(now, again_at=until)
            if thing is None:
                return told
            due = thing.due(now)
            await self.tell(thing, len(due), due[-1])
            await self._store.told(thing, taken_until=until, next_at=rules.next_telling(thing.steps, now))
            told += 1

    async def _add(
        self,
        kind: str,
        reference: str,
        amount_minor: int,
        currency: str,
        steps: Sequence[Step],
        *,
        who: str = "",
        about: str = "",
        return_url: str = "",
        account_number: str = "",
    ) -> bool:
        thing = Thing(
            id=f"{kind}:{reference}",
            reference=reference,
            amount_minor=amount_minor,
            currency=currency,
            who=who,
            about=about,
            return_url=return_url,
            account_number=account_number,
            steps=tuple(steps),
        )
        return await self._store.add(thing, tell_at=rules.next_telling(steps, self._clock.now()))
