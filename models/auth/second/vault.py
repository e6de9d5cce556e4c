"""Small secrets that must be read again, encrypted before they reach the database: AES-256-GCM.

The key is derived (HKDF-SHA256, RFC 5869) from a secret of the server that is not in the database. Whose secret it is
goes in as associated data, so a row that is copied to another person opens nothing.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.ports import Chance

_LABEL = b"ringmeter second factor v1"
# First byte of what is kept, should there ever be another form.
_VERSION = b"\x01"
_NONCE_BYTES = 12


class VaultClosed(Exception):
    """What is kept was not sealed under this secret: TOTP_SECRET (or JWT_SECRET) has changed."""


class Vault:
    """``Vault(secret, chance)``; ``secret`` has at least 32 bytes."""

    def __init__(self, secret: str, chance: Chance) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_LABEL).derive(secret.encode())
        self._cipher = AESGCM(key)
        self._chance = chance

    def seal(self, owner: str, secret: bytes) -> bytes:
        """What may lie in the database."""
        nonce = self._chance.bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, owner.encode())

    def open(self, owner: str, kept: bytes) -> bytes:
        """The secret again. Raises ``VaultClosed``."""
        nonce, sealed = kept[1 : 1 + _NONCE_BYTES], kept[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, sealed, owner.encode())
        except (InvalidTag, ValueError):
            raise VaultClosed("the secret that second factors are sealed with has changed") from None
