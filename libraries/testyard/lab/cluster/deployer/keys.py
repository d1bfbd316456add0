"""Makes the key pair that logs in to the nodes of one deployment."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


class KeyPair(NamedTuple):
    """A pair of Ed25519 keys.

    Attributes:
        private: In OpenSSH's format, for a file.
        public: One line, for ``authorized_keys``.
    """

    private: str
    public: str


def new_key_pair(comment: str) -> KeyPair:
    """A key pair that nobody has.

    Args:
        comment: Whose it is, written after the public key.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return KeyPair(private.decode(), f"{public.decode()} {comment}")
