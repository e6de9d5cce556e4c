"""The part of the configuration that is about money coming in and going out: gateways, withdrawals, rates, notices."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from urllib.parse import urlsplit

from babel.numbers import is_currency
from environs import Env
from marshmallow import ValidationError

from server.config_checks import url, within
from server.config_read import DEFAULTS, optional, parse, whole, words

GATEWAYS = ("monnify", "paystack", "stripe", "sandbox")
MINOR_MAX = 10_000_000_000
# In development only, and only where neither FX_RATES nor FX_URL is set: near enough to try a conversion.
DEVELOPMENT_RATES = (
    "USD/NGN=1600",
    "EUR/NGN=1850",
    "GBP/NGN=2150",
    "USD/KES=130",
    "USD/GHS=11",
    "USD/ZAR=17",
)

Rates = tuple[tuple[str, str, Decimal], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyConfig:
    """What the server was told about money. A gateway without its key is not there."""

    public_url: str | None
    gateway: str | None
    monnify_api_key: str | None
    monnify_secret_key: str | None = field(repr=False)
    monnify_contract_code: str | None
    monnify_account: str | None
    monnify_url: str | None
    paystack_secret_key: str | None = field(repr=False)
    paystack_url: str | None
    stripe_secret_key: str | None = field(repr=False)
    stripe_webhook_secrets: tuple[str, ...] = field(repr=False)
    stripe_url: str | None
    withdrawal_minor_min: int
    withdrawal_daily_minor_max: int
    withdrawal_fee_minor: int
    withdrawal_approval_minor: int
    withdrawal_cool_off_seconds: int
    fx_rates: Rates  # (from, to, how many of "to" one of "from" is)
    fx_url: str | None
    fx_spread_bps: int
    fx_quote_seconds: int
    reward_points_per_minute: int
    reward_point_minor: int
    smtp_url: str | None = field(repr=False)
    mail_from: str | None
    twilio_account_sid: str | None
    twilio_auth_token: str | None = field(repr=False)
    twilio_from: str | None
    twilio_url: str | None


def money_config(read: Env, *, production: bool) -> MoneyConfig:
    """Read the variables; faults are kept by ``read``."""
    cool_off = parse(read, "WITHDRAWAL_COOL_OFF_SECONDS", within(0, 2_592_000), default=None)
    fixed = words(read, "FX_RATES", (), _rate)
    fx_url = optional(read, "FX_URL", url("http", "https"))
    if not fixed and not fx_url and not production:
        fixed = DEVELOPMENT_RATES
    return MoneyConfig(
        public_url=_bare(optional(read, "PUBLIC_URL", _address)),
        gateway=optional(read, "GATEWAY", _gateway),
        monnify_api_key=optional(read, "MONNIFY_API_KEY", _monnify_key),
        monnify_secret_key=optional(read, "MONNIFY_SECRET_KEY"),
        monnify_contract_code=optional(read, "MONNIFY_CONTRACT_CODE"),
        monnify_account=optional(read, "MONNIFY_ACCOUNT"),
        monnify_url=_bare(optional(read, "MONNIFY_URL", url("http", "https"))),
        paystack_secret_key=optional(read, "PAYSTACK_SECRET_KEY", _live_or_test("sk")),
        paystack_url=_bare(optional(read, "PAYSTACK_URL", url("http", "https"))),
        stripe_secret_key=optional(read, "STRIPE_SECRET_KEY", _live_or_test("sk", "rk")),
        stripe_webhook_secrets=words(read, "STRIPE_WEBHOOK_SECRETS", (), _nothing),
        stripe_url=_bare(optional(read, "STRIPE_URL", url("http", "https"))),
        withdrawal_minor_min=whole(read, "WITHDRAWAL_MINOR_MIN", 1, MINOR_MAX),
        withdrawal_daily_minor_max=whole(read, "WITHDRAWAL_DAILY_MINOR_MAX", 0, MINOR_MAX),
        withdrawal_approval_minor=whole(read, "WITHDRAWAL_APPROVAL_MINOR", 0, MINOR_MAX),
        withdrawal_fee_minor=whole(read, "WITHDRAWAL_FEE_MINOR", 0, MINOR_MAX),
        withdrawal_cool_off_seconds=(86_400 if production else 0) if cool_off is None else cool_off,
        fx_rates=tuple(_rated(text) for text in fixed),
        fx_url=fx_url,
        fx_spread_bps=whole(read, "FX_SPREAD_BPS", 0, 5_000),
        fx_quote_seconds=whole(read, "FX_QUOTE_SECONDS", 5, 3_600),
        reward_points_per_minute=whole(read, "REWARD_POINTS_PER_MINUTE", 0, 1_000_000),
        reward_point_minor=whole(read, "REWARD_POINT_MINOR", 1, MINOR_MAX),
        smtp_url=optional(read, "SMTP_URL", url("smtp", "smtps")),
        mail_from=optional(read, "MAIL_FROM", _mailbox),
        twilio_account_sid=optional(read, "TWILIO_ACCOUNT_SID"),
        twilio_auth_token=optional(read, "TWILIO_AUTH_TOKEN"),
        twilio_from=optional(read, "TWILIO_FROM", _number),
        twilio_url=_bare(optional(read, "TWILIO_URL", url("http", "https"))),
    )


# Set as a whole or not at all.
WHOLES = {
    "Monnify's": ("MONNIFY_API_KEY", "MONNIFY_SECRET_KEY", "MONNIFY_CONTRACT_CODE"),
    "Stripe's": ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS"),
    "the mail relay's": ("SMTP_URL", "MAIL_FROM"),
    "Twilio's": ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM"),
}
assert all(name in DEFAULTS for names in WHOLES.values() for name in names)


# Keys that move real money, by how they begin.
_LIVE = {
    "MONNIFY_API_KEY": ("MK_PROD_",),
    "PAYSTACK_SECRET_KEY": ("sk_live_",),
    "STRIPE_SECRET_KEY": ("sk_live_", "rk_live_"),
}


def live_keys(money: MoneyConfig) -> list[str]:
    """The variables whose keys move real money. They do not go with the sandbox, which credits what nobody has paid."""
    return [name for name, begins in _LIVE.items() if (getattr(money, name.lower()) or "").startswith(begins)]


def _bare(text: str | None) -> str | None:
    return text.rstrip("/") if text else None


def _nothing(_: str) -> None:
    return


def _address(text: str) -> None:
    url("http", "https")(text)
    parts = urlsplit(text)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValidationError("must be an address without user, query and fragment.")


def _gateway(text: str) -> None:
    if text not in GATEWAYS:
        raise ValidationError(f"must be one of: {', '.join(GATEWAYS)}.")


def _monnify_key(text: str) -> None:
    if not text.startswith(("MK_TEST_", "MK_PROD_")):
        raise ValidationError("must begin with MK_TEST_ or MK_PROD_.")


def _live_or_test(*kinds: str):  # type: ignore[no-untyped-def]
    wanted = [f"{kind}_{mode}_" for kind in kinds for mode in ("test", "live")]

    def check(text: str) -> None:
        # The value is a secret: the sentence must not repeat it.
        if not text.startswith(tuple(wanted)):
            raise ValidationError(f"must begin with {' or '.join(wanted)}.")

    return check


def _mailbox(text: str) -> None:
    if not re.fullmatch(r"(?:[^<>\r\n]{1,80} <[^\s<>@]+@[^\s<>@]+>|[^\s<>@]+@[^\s<>@]+)", text):
        raise ValidationError("must be an address such as Ringmeter <no-reply@example.com>.")


def _number(text: str) -> None:
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", text):
        raise ValidationError("must be a phone number such as +2348012345678.")


def _rate(text: str) -> None:
    try:
        _rated(text)
    except (ValueError, InvalidOperation):
        raise ValidationError(f"has {text!r}, which is not of the form USD/NGN=1600.5.") from None


def _rated(text: str) -> tuple[str, str, Decimal]:
    found = re.fullmatch(r"([A-Z]{3})/([A-Z]{3})=([0-9]{1,12}(?:\.[0-9]{1,12})?)", text)
    if found is None or found[1] == found[2] or not all(is_currency(one) for one in found.groups()[:2]):
        raise ValueError(text)
    value = Decimal(found[3])
    if not value:
        raise ValueError(text)
    return found[1], found[2], value
