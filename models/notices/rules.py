"""Which facts are told, and in which words. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from models.ledger.journal import Entry, Kind, Pocket, pocket_of
from models.money import exponent, spoken
from models.notices.notice import EMAIL, SMS, Fact, Letter, Settings, What
from models.notify.rules import after, wait_seconds
from models.users.profile import Account

# A transfer is told from this on, in major units: small change comes often and is seen in the app.
RECEIVED_MAJOR_MIN = 1_000
# Between two tries at most, and how long it is tried at all: older news are no news.
WAIT_SECONDS_MAX = 1800
TRY_HOURS = 24
# SMS that somebody gets in 24 hours at most: they cost money, and others can cause them.
SMS_PER_DAY_MAX = 20

_GATEWAY = "gateway:"
_LEAVES = "If this was not you, change your password and ask the support at once."
_OFF = "You get this since you have a wallet here. Which notices you get is set in the app."


def facts_of(entry: Entry) -> list[Fact]:
    """What an entry of the journal is to its users, as far as they are told of it."""
    match entry.kind:
        case Kind.DEPOSIT:
            return _told(entry, What.MONEY_IN, -_collected(entry))
        case Kind.REVERSAL:
            return _told(entry, What.TAKEN_BACK, _collected(entry))
        case Kind.WITHDRAWAL:
            return _told(entry, What.WITHDRAWN, _collected(entry))
        case Kind.WITHDRAW_VOID:
            return _told(entry, What.WITHDRAWAL_FAILED, _into_primary(entry))
        case Kind.WITHDRAW_RETURN:
            return _told(entry, What.WITHDRAWAL_RETURNED, _into_primary(entry))
        case Kind.TRANSFER:
            least = RECEIVED_MAJOR_MIN * 10 ** exponent(entry.legs[0].currency)
            amount = _into_primary(entry)
            return _told(entry, What.RECEIVED, amount, gains=True) if amount >= least else []
    return []


def _told(entry: Entry, what: What, amount_minor: int, *, gains: bool = False) -> list[Fact]:
    """A fact for each owner of a wallet in the entry, or only for who ``gains``."""
    wallets = {
        found[0]
        for leg in entry.legs
        if (found := pocket_of(leg.account)) is not None and (leg.amount_minor > 0 or not gains)
    }
    return [
        Fact(
            id=f"{entry.id}:{wallet}",
            user_id=wallet.rpartition(":")[0],
            what=what,
            at=entry.at,
            amount_minor=amount_minor,
            currency=entry.legs[0].currency,
        )
        for wallet in sorted(wallets)
    ]


def _collected(entry: Entry) -> int:
    return sum(leg.amount_minor for leg in entry.legs if leg.account.startswith(_GATEWAY))


def _into_primary(entry: Entry) -> int:
    return sum(
        leg.amount_minor
        for leg in entry.legs
        if leg.amount_minor > 0
        and (found := pocket_of(leg.account)) is not None
        and found[1] is Pocket.PRIMARY
    )


# ------------------------------------------------------------------------------------------------------------ sending


def ways(account: Account, settings: Settings, carriers: Iterable[str]) -> dict[str, str]:
    """The address by each way that somebody wants, has shown to be theirs, and can be reached by.

    One that was not verified may be a stranger's: they would read of another's money, or be paid for our SMS.
    """
    wanted = {
        EMAIL: account.email if settings.email and account.email_verified else None,
        SMS: account.phone if settings.sms and account.phone_verified else None,
    }
    return {way: address for way, address in wanted.items() if address and way in set(carriers)}


def next_try_at(
    fact: Fact, attempts: int, now: datetime, *, asked_seconds: float, chance: str
) -> datetime | None:
    """When to try again, or None: it is too late for that."""
    wait = max(asked_seconds, wait_seconds(attempts, most=WAIT_SECONDS_MAX, chance=chance))
    at = after(now, wait)
    return at if at <= fact.at + timedelta(hours=TRY_HOURS) else None


def mark_of(fact: Fact) -> str:
    """What is the fact's own in its letters, and says nothing: a digest of its id."""
    return hashlib.sha256(fact.id.encode()).hexdigest()[:24]


# -------------------------------------------------------------------------------------------------------------- words


def letter(fact: Fact, way: str, *, to: str, name: str) -> Letter:
    """A fact in words. An SMS is one sentence, with the end of the mark by which it is found again."""
    mark = mark_of(fact)
    subject, sentence, guards = _words(fact)
    if way == SMS:
        text = f"{sentence} {_LEAVES}" if guards else sentence
        return Letter(to=to, subject="", text=f"{text} Ref {mark[:8]}", mark=mark, at=fact.at)
    parts = [f"Hello {name},", sentence, *([_LEAVES] if guards else []), f"{_OFF} (Ref {mark[:8]})"]
    return Letter(to=to, subject=subject, text="\n\n".join(parts) + "\n", mark=mark, at=fact.at)


def _words(fact: Fact) -> tuple[str, str, bool]:
    """A subject, a sentence, and whether it is about what guards the money."""
    amount = ""
    if fact.amount_minor is not None and fact.currency is not None:
        amount = spoken(fact.amount_minor, fact.currency)
    at = f"on {_day(fact.at)}"
    match fact.what:
        case What.MONEY_IN:
            return f"{amount} paid in", f"{amount} was paid into your wallet {at}.", False
        case What.RECEIVED:
            return f"{amount} received", f"Somebody sent you {amount} {at}.", False
        case What.TAKEN_BACK:
            return (
                f"{amount} taken back",
                f"A payment of yours was reversed {at}: {amount} left your wallet.",
                True,
            )
        case What.WITHDRAWN:
            return f"{amount} withdrawn", f"Your withdrawal of {amount} was paid out {at}.", True
        case What.WITHDRAWAL_FAILED:
            return (
                "Withdrawal failed",
                f"Your withdrawal failed {at}; {amount} is in your wallet again.",
                False,
            )
        case What.WITHDRAWAL_RETURNED:
            return (
                "Withdrawal returned",
                f"Your bank sent a withdrawal back {at}; {amount} is in your wallet again.",
                False,
            )
        case What.PIN_CHANGED:
            return "Your PIN was changed", f"The PIN of your wallet was changed {at}.", True
        case What.BANK_ACCOUNT_ADDED:
            ending = f" ending in {fact.detail}" if fact.detail else ""
            return "Bank account added", f"A bank account{ending} was added to your wallet {at}.", True
        case What.FROZEN:
            return (
                "Your wallet is frozen",
                f"Your wallet was frozen {at}: nothing can leave it. Ask the support.",
                False,
            )
        case What.PASSWORD_CHANGED:
            return "Your password was changed", f"The password of your account was changed {at}.", True
        case What.SECOND_FACTOR_ON:
            return "Second factor turned on", f"Signing in takes a code of an app since {at}.", True
        case What.SECOND_FACTOR_OFF:
            return (
                "Second factor turned off",
                f"Signing in takes no code of an app any more since {at}.",
                True,
            )
        case What.API_KEY_MADE:
            return "API key made", f"A key with which a server acts for you was made {at}.", True


def _day(at: datetime) -> str:
    utc = at.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y} at {utc:%H:%M} UTC"
