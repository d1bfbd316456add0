"""Encryption of stored credentials: the seam for a key management service, and AES-GCM with a local key.

Source: issue 4 (decisions: AES-GCM, key from the environment, a KMS seam); NIST SP 800-38D (GCM, 96-bit nonces).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from testyard.core.errors import UserError

KEY_VARIABLE: Final = "PIPELINES_ENCRYPTION_KEY"
KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class EncryptionKeyError(UserError):
    """The encryption key is missing or malformed. Never shows the value."""


class DecryptionError(Exception):
    """A stored value cannot be decrypted: another key, another owner, or it was changed."""


class Cipher(Protocol):
    """What the service needs of an encryption: a key management service can stand here."""

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt a value.

        Args:
            plaintext: The value.
            context: What the value belongs to; not secret, not stored, needed again for decryption.

        Returns:
            What can be stored.
        """
        ...

    def decrypt(self, ciphertext: bytes, context: bytes) -> bytes:
        """Decrypt a stored value.

        Args:
            ciphertext: What ``encrypt`` returned.
            context: What the value belongs to, as it was given to ``encrypt``.

        Returns:
            The value.

        Raises:
            DecryptionError: It was not encrypted with this key and context, or it was changed.
        """
        ...


class AesGcmCipher:
    """AES-256-GCM with one key: version byte, 12-byte random nonce, ciphertext with its 16-byte tag.

    Args:
        key: 32 bytes.

    Raises:
        EncryptionKeyError: Not 32 bytes.

    Example:
        >>> cipher = AesGcmCipher(AESGCM.generate_key(256))
        >>> stored = cipher.encrypt(b"secret", credential_context("acme", "cred_1"))
        >>> cipher.decrypt(stored, credential_context("acme", "cred_1"))
        b'secret'
    """

    def __init__(self, key: bytes) -> None:
        """Take the key."""
        if len(key) != KEY_BYTES:
            raise EncryptionKeyError(f"the encryption key has {len(key)} bytes, expected {KEY_BYTES}")
        self._aes = AESGCM(key)

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """See ``Cipher.encrypt``. Two encryptions of one value differ: each has its own nonce."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._aes.encrypt(nonce, plaintext, _VERSION + context)

    def decrypt(self, ciphertext: bytes, context: bytes) -> bytes:
        """See ``Cipher.decrypt``."""
        if ciphertext[:1] != _VERSION:
            raise DecryptionError(f"the stored value has format {ciphertext[:1].hex() or 'none'}, expected 01")
        if len(ciphertext) < len(_VERSION) + _NONCE_BYTES + _TAG_BYTES:
            raise DecryptionError(f"the stored value is cut off: {len(ciphertext)} bytes")
        nonce = ciphertext[1 : 1 + _NONCE_BYTES]
        try:
            return self._aes.decrypt(nonce, ciphertext[1 + _NONCE_BYTES :], _VERSION + context)
        except InvalidTag as error:
            raise DecryptionError("the stored value has another key or owner, or it was changed") from error


def credential_context(customer_id: str, credential_id: str) -> bytes:
    """What ties an encrypted credential to its row: moved to another customer it does not decrypt.

    Args:
        customer_id: The customer.
        credential_id: The credential.

    Returns:
        The context for ``Cipher``, different for every pair.
    """
    customer = customer_id.encode()
    # With the length in front, ("ab", "c") and ("a", "bc") are not the same context.
    return len(customer).to_bytes(4, "big") + customer + credential_id.encode()


def cipher_from_environment(environ: Mapping[str, str] = os.environ) -> AesGcmCipher:
    """The cipher with the key from ``PIPELINES_ENCRYPTION_KEY``.

    Args:
        environ: The environment: base64 (standard alphabet) of 32 bytes under that name.

    Returns:
        The cipher.

    Raises:
        EncryptionKeyError: The variable is missing, not base64, or not 32 bytes.
    """
    expected = f"expected base64 of {KEY_BYTES} bytes, as `openssl rand -base64 {KEY_BYTES}` prints it"
    text = environ.get(KEY_VARIABLE, "").strip()
    if not text:
        raise EncryptionKeyError(f"{KEY_VARIABLE} is not set; {expected}")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # The chain is cut: the value must not come near a traceback.
        raise EncryptionKeyError(f"{KEY_VARIABLE} is not base64; {expected}") from None
    if len(key) != KEY_BYTES:
        raise EncryptionKeyError(f"{KEY_VARIABLE} decodes to {len(key)} bytes; {expected}")
    return AesGcmCipher(key)
