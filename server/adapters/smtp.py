"""E-mail over a relay (SMTP, RFC 5321), with TLS: ``models.notices.notice.Carrier``.

``smtp://`` upgrades by STARTTLS (RFC 3207) and ``smtps://`` is TLS from the first byte (RFC 8314). Only to a relay on
this very machine a letter, or a password, goes without: everywhere else a relay that offers no TLS is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog

from models.notices.notice import CARRY_SECONDS_MAX, Letter, Outcome, Sent

log = structlog.get_logger(__name__)

# Connections at the same time; relays count them.
CONNECTIONS_MAX = 4
BYE_SECONDS = 1
PORTS = {"smtp": 587, "smtps": 465}
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Where letters are handed over, as ``SMTP_URL`` says."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None = field(repr=False)

    @property
    def here(self) -> bool:
        """Whether it is on this machine, so that nobody listens in between."""
        return self.host in LOOPBACK


def relay_of(url: str) -> Relay:
    """``smtp://user:password@host:587`` as a relay; user and password as in any URL."""
    parts = urlsplit(url)
    return Relay(
        host=parts.hostname or "",
        port=parts.port or PORTS[parts.scheme],
        tls=parts.scheme == "smtps",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


class SmtpCarrier:
    """One per process. ``sender`` is ``MAIL_FROM``; ``context`` is for tests' own certificates."""

    def __init__(
        self,
        relay: Relay,
        sender: str,
        *,
        context: ssl.SSLContext | None = None,
        total_seconds: float = CARRY_SECONDS_MAX,
    ) -> None:
        self._relay = relay
        self._sender = sender
        self._address = parseaddr(sender)[1]
        self._context = context
        self._total_seconds = total_seconds
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)

    async def carry(self, letter: Letter) -> Outcome:
        """Hand a letter to the relay."""
        client = self._client()
        try:
            async with asyncio.timeout(self._total_seconds), self._places:
                await client.connect()
                await client.send_message(self._message(letter), sender=self._address, recipients=[letter.to])
        except Exception as fault:
            client.close()
            return _outcome(fault)
        except BaseException:
            client.close()
            raise
        # It has the letter, however it takes the good-bye.
        with suppress(Exception):
            async with asyncio.timeout(BYE_SECONDS):
                await client.quit()
        client.close()
        return Outcome(sent=Sent.OK)

    async def carried(self, letter: Letter) -> bool | None:
        """A relay cannot be asked."""
        return None

    async def try_access(self) -> str | None:
        """Whether the relay lets us in: None when it does, else why not. Sends nothing."""
        try:
            async with asyncio.timeout(self._total_seconds):
                async with self._client() as client:
                    await client.noop()
        except TimeoutError:
            return "too slow"
        except aiosmtplib.SMTPResponseException as no:
            return f"it answers {no.code}"
        except (aiosmtplib.SMTPException, ssl.SSLError, OSError) as fault:
            return type(fault).__name__
        return None

    async def close(self) -> None:
        """No connection stays open."""

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage(policy=SMTP_POLICY)
        message["From"] = self._sender
        message["To"] = letter.to
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(letter.at)
        # The same at every try: whoever gets it twice can tell (RFC 5322 §3.6.4).
        message["Message-ID"] = f"<{letter.mark}@{self._address.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: machines do not answer it
        message.set_content(letter.text)
        return message

    def _client(self) -> aiosmtplib.SMTP:
        relay = self._relay
        # None: upgrade if the relay can. True: nothing is said before it is upgraded.
        start_tls = False if relay.tls else (None if relay.here else True)
        return aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            username=relay.user,
            password=relay.password,
            use_tls=relay.tls,
            start_tls=start_tls,
            tls_context=self._context,
            timeout=self._total_seconds,
        )


def _outcome(fault: Exception) -> Outcome:
    """What a fault says of the letter. 4yz: perhaps later. 5yz: never like this (RFC 5321 §4.2.1)."""
    match fault:
        case aiosmtplib.SMTPRecipientsRefused():
            return _refused(fault.recipients[0].code, "recipient")
        case aiosmtplib.SMTPDataError():
            return _refused(fault.code, "message")
        case aiosmtplib.SMTPSenderRefused():
            return _wrong(fault.code, "sender")
        case aiosmtplib.SMTPAuthenticationError():
            return _wrong(fault.code, "password")
        case aiosmtplib.SMTPResponseException():
            return _away(f"answered {fault.code}")
        case ssl.SSLError():  # among them those of certificates, which are ValueErrors as well
            return _away(type(fault).__name__)
        case aiosmtplib.SMTPNotSupported() | ValueError():
            return _refused(553, "address")  # one that cannot be written down, for this relay or at all
        case TimeoutError():
            return _away("too slow")
        case aiosmtplib.SMTPException() | OSError():
            return _away(type(fault).__name__)
    raise fault


def _refused(code: int, what: str) -> Outcome:
    log.warning("mail not taken", code=code, about=what)
    return Outcome(sent=Sent.LATER if 400 <= code < 500 else Sent.NEVER, reason=f"{what} {code}")


def _wrong(code: int, what: str) -> Outcome:
    """What is ours to put right: the letters wait for it."""
    log.error("mail is set up wrongly", code=code, about=what)
    return Outcome(sent=Sent.LATER, reason=f"{what} {code}")


def _away(why: str) -> Outcome:
    """Cut off after the letter it may have been taken; then it comes again under the same Message-ID."""
    log.warning("mail relay away", error=why)
    return Outcome(sent=Sent.LATER, reason="away")
