"""Handing pushes to the providers, all at the same time, and what follows from their answers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.notify.ports import Note, Outcome, Push, Sender, Sent, Token, Tokens
from models.notify.receipts.store import Receipt, ReceiptStore
from models.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressed:
    """A push, and the token by which it goes."""

    token: Token
    push: Push


# A push, and what its provider said to it.
Answered = tuple[Addressed, Outcome]


class Delivery:
    """One per process. ``senders`` by kind of token; a kind without a sender is not pushed to.

    ``count`` hears of every outcome with its kind of token.
    """

    def __init__(
        self,
        *,
        senders: Mapping[str, Sender],
        tokens: Tokens,
        receipts: ReceiptStore,
        clock: Clock,
        count: Callable[[str, Outcome], None],
    ) -> None:
        self._senders = senders
        self._tokens = tokens
        self._receipts = receipts
        self._clock = clock
        self._count = count

    @property
    def kinds(self) -> Collection[str]:
        """The kinds of tokens that have a sender."""
        return self._senders.keys()

    async def deliver(self, letters: Sequence[Sequence[Addressed]]) -> list[list[Answered]]:
        """Send all the pushes of several to-dos; for each to-do its pushes and what was said to them.

        Dead tokens are forgotten and receipts kept by then. Sending is at least once: who dies in here is followed by
        somebody who sends again, and the device tells by the ids in the data that it is the same.
        """
        mail = [one for some in letters for one in some]
        outcomes = dict(await self._quiet(mail))
        asked_at = self._clock.now()

        async def to_provider(kind: str) -> None:
            places = [n for n, one in enumerate(mail) if one.token.kind == kind and n not in outcomes]
            results = await self._senders[kind].send([mail[n].push for n in places]) if places else []
            outcomes.update(zip(places, results, strict=True))

        await asyncio.gather(*(to_provider(kind) for kind in {one.token.kind for one in mail}))
        answers = [(one, outcomes[n]) for n, one in enumerate(mail)]
        await self._note(answers, asked_at)
        rest = iter(answers)
        return [[next(rest) for _ in some] for some in letters]

    async def _quiet(self, mail: Sequence[Addressed]) -> list[tuple[int, Outcome]]:
        """The messages, by place, to devices that get too many of them: they wait a little."""
        tokens = [one.token.token for one in mail if one.push.note is Note.MESSAGE]
        hushed = await self._receipts.hushed(tokens, self._clock.now())
        return [
            (n, Outcome(sent=Sent.LATER, reason="quiet"))
            for n, one in enumerate(mail)
            if one.push.note is Note.MESSAGE and one.token.token in hushed
        ]

    async def _note(self, answers: Sequence[Answered], asked_at: datetime) -> None:
        for one, said in answers:
            self._count(one.token.kind, said)
        dead = {
            one.token.token: said.gone_since or asked_at for one, said in answers if said.sent is Sent.GONE
        }
        if dead:
            await self._tokens.dead(dead)
        receipts = [
            Receipt(id=said.receipt_id, kind=one.token.kind, token=one.token.token, sent_at=asked_at)
            for one, said in answers
            if said.receipt_id is not None
        ]
        await self._receipts.keep(receipts, self._clock.now())
