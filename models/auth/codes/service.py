"""Verbs of codes: wished for, sent by a job, shown.

    Codes(store=CodeStore(db), accounts=AccountStore(db), people=UserStore(db), tries=TryStore(db), messenger=…,
          known=KnownDevices(secret), windows=windows, clock=clock, ids=ids, chance=chance, pepper=…,
          house="Ringmeter")

Nobody learns here whether there is an account: asking leaves a row in any case, and a wrong code is the same as one
that was never sent. Whether a message goes out is a job's business, and nobody sees how long that takes.

A device that was signed in before has codes of its own: strangers who ask for codes all day neither replace them nor
use up how many are sent, and their wrong guesses make none of them useless.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from models.auth.codes.ports import Brought, Messenger
from models.auth.codes.rules import (
    AGAIN_AFTER,
    ASKED_MAX,
    GIVE_UP_AFTER,
    GOOD_FOR,
    PER_HOUR_MAX,
    Message,
    Purpose,
    code_of,
    digest,
    where_to,
    wish_key,
    words,
)
from models.auth.codes.store import Code, CodeStore, Wish
from models.auth.known import KnownDevices
from models.auth.rules import Key
from models.auth.store import AccountStore
from models.auth.tries.store import TryStore
from models.blocks.rules import network_of, spared
from models.db import Session
from models.errors import Refusal
from models.notify.rounds import Rounds, each
from models.ports import Chance, Clock, Ids, Window, Windows
from models.users.profile import Account
from models.users.store import UserStore

ROUNDS_MAX = 4
_BY_ID = "id"


class Codes:
    """See the module for its making."""

    def __init__(
        self,
        *,
        store: CodeStore,
        accounts: AccountStore,
        people: UserStore,
        tries: TryStore,
        messenger: Messenger,
        known: KnownDevices,
        windows: Windows,
        clock: Clock,
        ids: Ids,
        chance: Chance,
        pepper: bytes,
        house: str,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._people = people
        self._tries = tries
        self._messenger = messenger
        self._known = known
        self._windows = windows
        self._clock = clock
        self._ids = ids
        self._chance = chance
        self._pepper = pepper
        self._house = house
        self._rounds = Rounds(claim=store.claim, work=self._work, most=ROUNDS_MAX, clock=clock, ids=ids)

    # ----------------------------------------------------------------------------------------------------- wished for

    async def forgot(self, identifier: str, *, device_token: str | None = None, address: str = "") -> None:
        """Somebody has forgotten the password of the account of that name, if there is one.

        One ``address``, and who has been signed in on whatever devices of theirs, asks so often for one name: refuses
        with ``RATE_LIMITED``. Whether the name is that of the device's own account, nobody learns here.
        """
        now, (field, value) = self._clock.now(), wish_key(identifier)
        device = self._known.read(device_token)
        # A proxy's address would be everybody's.
        if device is not None or (address and not spared(address)):
            who = f"known:{device.user_id}" if device is not None else network_of(address)
            whose = digest(self._pepper, Purpose.RESET, who, f"{field}:{value}")
            window = Window(f"reset asked {whose}", ASKED_MAX, 3600.0)
            wait = await self._windows.take(window, now=now.timestamp())
            if wait:
                raise Refusal("RATE_LIMITED", retry_after_ms=wait)
        await self._store.wish(Purpose.RESET, field, value, now, by=device.user_id if device else None)

    async def send_verification(self, user_id: str, purpose: Purpose) -> None:
        """Send a code to the user's own address. Refuses with ``VALIDATION_FAILED`` when there is no such address."""
        account = await self._people.account(user_id)
        if purpose is Purpose.EMAIL and (account is None or not account.email):
            raise Refusal("VALIDATION_FAILED", email=["This account has no e-mail address."])
        if purpose is Purpose.PHONE and (account is None or not account.phone):
            raise Refusal("VALIDATION_FAILED", phone=["This account has no phone number."])
        await self._store.wish(purpose, _BY_ID, user_id, self._clock.now())

    # ---------------------------------------------------------------------------------------------------------- shown

    async def shown_for_reset(
        self, identifier: str, code: str, *, address: str, device_token: str | None = None
    ) -> Code:
        """The code that was sent for that account, which this is; used up by ``use``.

        ``address`` is whose tries are counted, or a device that was signed in before: five wrong ones, and it waits.
        Refuses with ``CODE_WRONG`` and ``RATE_LIMITED``, of accounts that are not there as of any other.
        """
        field, value = wish_key(identifier)
        seen = None if field == "nobody" else await self._accounts.credentials(Key(field), value)
        user_id = seen.user_id if seen else ""
        device = self._known.read(device_token)
        mine = device is not None and device.user_id == user_id
        whose = f"known:{device.id}" if device and mine else f"{field}:{value}:{network_of(address)}"
        key = await self._counted(Purpose.RESET, whose)
        for known in (False, True):
            kept = await self._matching(Purpose.RESET, user_id, code, known=known, outside=known and not mine)
            if kept is not None:
                await self._tries.clear(key)
                return kept
        raise Refusal("CODE_WRONG")

    async def verify(self, user_id: str, purpose: Purpose, code: str) -> Account:
        """The user reads that address, as the code shows; safe to repeat. ``CODE_WRONG``, ``RATE_LIMITED``."""
        account = await self._people.account(user_id)
        assert account is not None, "whoever is signed in has an account"
        if account.email_verified if purpose is Purpose.EMAIL else account.phone_verified:
            return account
        key = await self._counted(purpose, user_id)
        shown = await self._matching(purpose, user_id, code)
        if shown is None:
            raise Refusal("CODE_WRONG")
        await self._tries.clear(key)
        verified = await self._accounts.verified(shown, self._clock.now(), use=self._store.use)
        if verified is None:
            raise Refusal("CODE_WRONG")
        return verified

    async def use(self, code: Code, transaction: Session) -> bool:
        """Use a code up, as part of what it was shown for; False when it was used meanwhile."""
        return await self._store.use(code, transaction)

    async def _counted(self, purpose: Purpose, whose: str) -> str:
        """Count a try of a person, device or address; under which key. ``RATE_LIMITED``."""
        now = self._clock.now()
        # Addresses are nothing to keep where they are not needed.
        key = f"code {purpose}:{digest(self._pepper, purpose, '', whose)}"
        tried = await self._tries.count(key, now)
        if tried is None:
            raise Refusal("RATE_LIMITED", retry_after_ms=await self._tries.locked_ms(key, now))
        return key

    async def _matching(
        self, purpose: Purpose, user_id: str, code: str, *, known: bool = False, outside: bool = False
    ) -> Code | None:
        kept = await self._store.count_try(purpose, user_id, self._clock.now(), known=known, outside=outside)
        made = digest(self._pepper, purpose, user_id, code)
        return kept if kept is not None and hmac.compare_digest(made, kept.digest) else None

    # ----------------------------------------------------------------------------------------------------------- sent

    async def run_due(self) -> int:
        """Send what was wished for; how many wishes. Any number of processes may do this at the same time."""
        return await self._rounds.run()

    async def _work(self, batch: Sequence[Wish]) -> None:
        await each(self._send(wish) for wish in batch)

    async def _send(self, wish: Wish) -> None:
        now = self._clock.now()
        brought = Brought.NEVER
        if now - wish.asked_at < GIVE_UP_AFTER:
            brought = await self._brought(wish)
        if brought is Brought.LATER:
            await self._store.again(wish, self._clock.now() + AGAIN_AFTER)
        else:
            await self._store.done(wish)

    async def _brought(self, wish: Wish) -> Brought:
        account = await self._account(wish)
        to = where_to(wish.purpose, account, wish.field) if account is not None else None
        if account is None or to is None or not self._messenger.reaches(to[0]):
            return Brought.NEVER
        way, address = to
        user_id, now = account.profile.user_id, self._clock.now()
        code = code_of(self._chance.bytes(16))
        kept = Code(
            user_id=user_id,
            purpose=wish.purpose,
            digest=digest(self._pepper, wish.purpose, user_id, code),
            way=way,
            address=address,
            known=wish.by == user_id,
        )
        # Another try of the same wish is a code that was counted already.
        most = PER_HOUR_MAX[way] if wish.attempts == 1 else None
        if not await self._store.keep(kept, now, now + GOOD_FOR, most=most):
            return Brought.NEVER
        subject, text = words(wish.purpose, way, code, house=self._house)
        message = Message(way=way, to=address, subject=subject, text=text, mark=self._ids.new(), at=now)
        return await self._messenger.bring(message)

    async def _account(self, wish: Wish) -> Account | None:
        if wish.field == _BY_ID:
            account = await self._people.account(wish.value)
        elif wish.field in {key.value for key in Key}:
            account = await self._accounts.by_key(Key(wish.field), wish.value)
        else:
            account = None
        return account if account is not None and account.profile.active else None
