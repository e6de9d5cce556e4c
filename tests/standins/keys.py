"""Keys and certificates for the stand-ins, made when they are needed and trusted by nobody else."""

from __future__ import annotations

import ipaddress
import json
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def pem(key: Any) -> str:
    """A private key as text, as Google and Apple hand theirs out."""
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Google's."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def p256_key() -> ec.EllipticCurvePrivateKey:
    """Apple's."""
    return ec.generate_private_key(ec.SECP256R1())


def account_json(token_uri: str, **changes: Any) -> str:
    """A service account's file."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "ringmeter-test",
            "private_key_id": "k1",
            "private_key": pem(rsa_key()),
            "client_email": "push@ringmeter-test.iam.gserviceaccount.com",
            "token_uri": token_uri,
            **changes,
        }
    )


@dataclass(frozen=True)
class Tls:
    """Both sides of a TLS connection to this machine over HTTP/2."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def tls(folder: Path) -> Tls:
    """A certificate for the loopback address; its files are put into ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM)
    file = folder / "standin.pem"
    file.write_bytes(pem(key).encode() + chain)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    server.set_alpn_protocols(["h2"])
    client = ssl.create_default_context(cadata=chain.decode())
    return Tls(server, client)
