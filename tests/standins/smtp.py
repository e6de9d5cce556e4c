"""A mail relay on loopback: a real SMTP server (aiosmtpd) that a test can make refuse, break off, or wait.

``mode`` picks, for each letter by its number from 1, what becomes of it: ``ok``, ``grey`` (451 at the recipient),
``unknown`` (550 at the recipient), ``spam`` (554 after the text), ``busy`` (421 after the text), ``sender`` (550 at the
sender), ``cut`` (the connection goes after the text was taken), ``slow`` (no answer after the text).
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "relay@example.org", "a pass/word:@"
_ANSWERS = {"grey": "451 try again later", "unknown": "550 no such user here"}


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate of its own for localhost, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "relay.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=pem)
    return server, client


class RelayStandIn:
    """``letters`` are those that were taken, parsed; ``tls`` says of each whether it came encrypted."""

    def __init__(self, context: ssl.SSLContext | None = None, *, implicit: bool = False) -> None:
        self.letters: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.tls: list[bool] = []
        self.logins: list[bool] = []
        self.asked = 0
        self.mode: str | Callable[[int], str] = "ok"
        self.password_wanted = False
        self.hold = asyncio.Event()
        self.port = 0
        self._context, self._implicit = context, implicit
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1") -> None:
        """Listen on a free port."""
        starts = self._context if not self._implicit else None

        def one() -> SMTP:
            more: dict[str, Any] = {"authenticator": self._login, "auth_require_tls": starts is not None}
            return SMTP(
                self,
                hostname="relay.example.org",
                tls_context=starts,
                auth_required=self.password_wanted and starts is not None,
                enable_SMTPUTF8=False,
                loop=asyncio.get_running_loop(),
                **more,
            )

        self._server = await asyncio.get_running_loop().create_server(
            one, host, 0, ssl=self._context if self._implicit else None
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.hold.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    # -------------------------------------------------------------------------------------------- aiosmtpd's own hooks

    def _login(self, _s: SMTP, _n: Session, _e: Envelope, _m: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (
            USER.encode(),
            PASSWORD.encode(),
        )
        self.logins.append(right)
        return AuthResult(success=right, handled=right)

    async def handle_MAIL(
        self, _s: SMTP, _n: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked += 1
        if self._now() == "sender":
            return "550 not from you"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, _s: SMTP, _n: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := _ANSWERS.get(self._now()):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mode = self._now()
        if mode == "spam":
            return "554 we do not want this"
        if mode == "busy":
            return "421 too many connections"
        raw = envelope.original_content or b""
        self.letters.append(message_from_bytes(raw, policy=policy.default))
        self.recipients += envelope.rcpt_tos
        self.tls.append(session.ssl is not None or self._implicit)
        if mode == "cut":
            assert server.transport is not None
            server.transport.abort()
        if mode == "slow":
            await self.hold.wait()
        return "250 taken"

    def _now(self) -> str:
        return self.mode(self.asked) if callable(self.mode) else self.mode
