"""Posting: read the wallets, let a pure function say what happens, write it all in one transaction or not at all.

    await ledger.post([payer, payee], plan, also=…)

Within a process the postings of one wallet go one after another, so transactions rarely meet; between processes the
wallet's version decides, and whoever comes second reads and computes again. An entry's id is its idempotency key:
posting it again changes nothing and is answered with what was posted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from models.also import Also
from models.db import DuplicateKeyError, Session, Stale
from models.errors import Refusal
from models.ledger import rules
from models.ledger.journal import Entry, Sealed, Wallet, wallet_key
from models.ledger.seen import Seen
from models.ledger.store import AlreadyPosted, LedgerStore
from models.ports import Clock, Ids

log = structlog.get_logger(__name__)

# Readings of one posting against writers in other processes before it gives up as busy.
TRIES_MAX = 12

# Told after a commit: the wallets as they are now, and the entries that made them so.
Listener = Callable[[Sequence[Wallet], Sequence[Entry]], Awaitable[None]]
# From the wallets as they are to what shall happen. Pure; it may run several times; it may refuse.
Plan = Callable[[Mapping[str, Wallet]], Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Draft:
    """Entries computed from wallets at their versions, to be written within somebody's transaction."""

    sealed: tuple[Sealed, ...]
    before: Mapping[str, Wallet]
    after: Mapping[str, Wallet]

    @property
    def entries(self) -> list[Entry]:
        """The entries without their links."""
        return [one.entry for one in self.sealed]

    @property
    def changed(self) -> list[Wallet]:
        """The wallets that the entries move, as they are after them."""
        return [wallet for key, wallet in self.after.items() if wallet.version != self.before[key].version]


@dataclass(frozen=True, slots=True)
class Posted:
    """What was posted, and the wallets after it. ``again``: it had been posted before, and nothing has changed."""

    wallets: Mapping[str, Wallet]
    again: bool = False


class Ledger:
    """One per process."""

    def __init__(self, store: LedgerStore, clock: Clock, ids: Ids) -> None:
        self.store = store
        self._clock = clock
        self._ids = ids
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.listeners: list[Listener] = []
        # For renewals alone, which come again and again; whatever may refuse somebody reads the wallet.
        self.seen = Seen()
        # Told the code of each posting that is refused, for the metrics.
        self.refused: Callable[[str], None] = lambda code: None

    # ---------------------------------------------------------------------------------------------------- wallets

    async def wallet(self, user_id: str, currency: str) -> Wallet | None:
        """A user's wallet in a currency."""
        key = wallet_key(user_id, currency)
        return (await self.store.wallets([key])).get(key)

    async def ensure(self, user_id: str, currency: str) -> Wallet:
        """The user's wallet in a currency, made empty if there is none. Safe to repeat."""
        found = await self.wallet(user_id, currency)
        if found is not None:
            return found
        fresh = Wallet(
            key=wallet_key(user_id, currency),
            id=self._ids.new(),
            credits_id=self._ids.new(),
            user_id=user_id,
            currency=currency,
            created_at=self._clock.now(),
        )
        if await self.store.create(fresh):
            return fresh
        made = await self.wallet(user_id, currency)
        assert made is not None, "somebody else made it"
        return made

    async def freeze(
        self, user_id: str, *, frozen: bool, currency: str | None = None, also: Also | None = None
    ) -> list[Wallet]:
        """Let nothing out of a user's wallet (of all, without ``currency``), or again; they are told.

        What comes in still does, and calls that run go on. Safe to repeat. ``also`` joins the transaction
        of a change. Refuses with ``WALLET_UNKNOWN``.
        """
        mine = await self.store.wallets_of(user_id)
        keys = [wallet.key for wallet in mine if currency in (None, wallet.currency)]
        if not keys:
            raise Refusal("WALLET_UNKNOWN")
        done = await self.store.freeze_all(keys, frozen, also)
        await self.announce(done)
        return done

    @asynccontextmanager
    async def turn(self, *keys: str) -> AsyncIterator[None]:
        """The right to post to these wallets, within this process. Always taken in the same order."""
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                # Kept by the stack: the table forgets a lock that nobody holds or waits for.
                await stack.enter_async_context(self._turns.setdefault(key, asyncio.Lock()))
            yield

    def busy(self, key: str) -> bool:
        """Whether somebody has the ``turn`` of a wallet in this process."""
        turn = self._turns.get(key)
        return turn is not None and turn.locked()

    # ---------------------------------------------------------------------------------------------------- posting

    @staticmethod
    def draft(wallets: Mapping[str, Wallet], entries: Sequence[Entry]) -> Draft:
        """What entries make of the wallets. Refuses with ``INSUFFICIENT_FUNDS`` and ``AMOUNT_TOO_LARGE``."""
        try:
            sealed, after = rules.post(wallets, entries)
        except rules.Overdrawn as over:
            raise Refusal("INSUFFICIENT_FUNDS", currency=over.wallet.currency) from over
        except rules.Overfull as full:
            raise Refusal("AMOUNT_TOO_LARGE") from full
        return Draft(tuple(sealed), wallets, after)

    async def write(self, draft: Draft, session: Session) -> None:
        """Write a draft within a transaction of the caller, who holds the ``turn``. Raises ``Stale``."""
        await self.store.write(draft.sealed, draft.before, draft.after, session)

    async def tell(self, draft: Draft) -> None:
        """After the commit: tell whoever listens. A listener's fault is its own."""
        if draft.sealed:
            await self.announce(draft.changed, draft.entries)

    async def announce(self, wallets: Sequence[Wallet], entries: Sequence[Entry] = ()) -> None:
        """Tell how wallets are now, also when no entry made them so (frozen). What is committed stays so."""
        self.seen.moved(wallets)
        for listener in self.listeners:
            try:
                await listener(wallets, entries)
            except Exception as error:
                log.error("a change of wallets was not told", exc_info=error)

    async def post(self, keys: Collection[str], plan: Plan, *, also: Also | None = None) -> Posted:
        """Read, plan, write, tell.

        ``plan`` is given the wallets among ``keys`` that exist. ``also`` joins the transaction. When one of the
        entries was posted before, nothing happens (``also`` neither) and the answer says ``again``.
        Refuses with ``INSUFFICIENT_FUNDS``, ``SERVER_BUSY`` and as ``plan`` does.
        """
        try:
            return await self._post(keys, plan, also)
        except Refusal as no:
            self.refused(no.code)
            raise

    async def _post(self, keys: Collection[str], plan: Plan, also: Also | None) -> Posted:
        async with self.turn(*keys):
            for _ in range(TRIES_MAX):
                wallets = await self.store.wallets(keys)
                entries = plan(wallets)
                try:
                    draft = self.draft(wallets, entries)
                except Refusal:
                    # What an entry takes is not there any more once it is posted.
                    if await self._known(entries):
                        return Posted(wallets, again=True)
                    raise
                if not draft.sealed and also is None:
                    return Posted(wallets)
                try:
                    await self.store.transact(draft.sealed, draft.before, draft.after, also)
                except Stale:
                    continue
                except AlreadyPosted:
                    return Posted(await self.store.wallets(keys), again=True)
                except (
                    DuplicateKeyError
                ):  # of ``also``: what it inserts may have come with an entry posted before
                    if not await self._known(entries):
                        raise
                    return Posted(await self.store.wallets(keys), again=True)
                break
            else:
                raise Refusal("SERVER_BUSY")
        await self.tell(draft)
        return Posted(draft.after)

    async def _known(self, entries: Sequence[Entry]) -> bool:
        """Whether one of these has been posted."""
        return any([await self.store.entry(entry.id) for entry in entries])
