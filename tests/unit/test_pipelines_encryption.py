"""Credentials at rest: what is stored tells nothing, and only its own row can be decrypted."""

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testyard.core.errors import UserError
from testyard.lab.pipelines.encryption import (
    KEY_VARIABLE,
    AesGcmCipher,
    Cipher,
    DecryptionError,
    EncryptionKeyError,
    cipher_from_environment,
    credential_context,
)

KEY = bytes(range(32))
SECRET = b'{"secret_access_key": "canary-5f1c"}'


@pytest.fixture
def cipher() -> Cipher:
    return AesGcmCipher(KEY)


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_what_is_encrypted_can_be_decrypted(plaintext: bytes, context: bytes):
    cipher = AesGcmCipher(KEY)
    assert cipher.decrypt(cipher.encrypt(plaintext, context), context) == plaintext


def test_the_stored_value_has_a_version_a_nonce_of_its_own_and_no_clear_text(cipher: Cipher):
    stored = [cipher.encrypt(SECRET, b"c") for _ in range(100)]
    assert {value[0] for value in stored} == {1}
    assert {len(value) for value in stored} == {1 + 12 + len(SECRET) + 16}
    assert len({value[1:13] for value in stored}) == 100
    assert not any(b"canary" in value for value in stored)


def test_a_row_moved_to_another_customer_does_not_decrypt(cipher: Cipher):
    stored = cipher.encrypt(SECRET, credential_context("acme", "cred_1"))
    assert cipher.decrypt(stored, credential_context("acme", "cred_1")) == SECRET
    for customer, credential in (("globex", "cred_1"), ("acme", "cred_2"), ("acmec", "red_1"), ("", "acmecred_1")):
        with pytest.raises(DecryptionError, match="another key or owner"):
            cipher.decrypt(stored, credential_context(customer, credential))


@given(st.tuples(st.text(max_size=5), st.text(max_size=5)), st.tuples(st.text(max_size=5), st.text(max_size=5)))
def test_two_credentials_never_share_a_context(one: tuple[str, str], other: tuple[str, str]):
    assert (credential_context(*one) == credential_context(*other)) is (one == other)


def test_another_key_does_not_decrypt(cipher: Cipher):
    with pytest.raises(DecryptionError):
        AesGcmCipher(bytes(32)).decrypt(cipher.encrypt(SECRET, b""), b"")


def test_a_changed_bit_anywhere_is_noticed(cipher: Cipher):
    stored = cipher.encrypt(b"ab", b"")
    for position in range(len(stored)):
        changed = bytearray(stored)
        changed[position] ^= 1
        with pytest.raises(DecryptionError):
            cipher.decrypt(bytes(changed), b"")


@pytest.mark.parametrize(
    ("length", "message"), [(0, "format none"), (1, "cut off"), (13, "cut off"), (28, "cut off")]
)
def test_a_value_that_is_cut_off_is_refused(cipher: Cipher, length: int, message: str):
    with pytest.raises(DecryptionError, match=message):
        cipher.decrypt(cipher.encrypt(b"", b"")[:length], b"")


def test_the_key_comes_from_the_environment(cipher: Cipher):
    environment = {KEY_VARIABLE: base64.b64encode(KEY).decode() + "\n"}
    assert KEY_VARIABLE == "PIPELINES_ENCRYPTION_KEY"
    assert cipher_from_environment(environment).decrypt(cipher.encrypt(SECRET, b""), b"") == SECRET


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "PIPELINES_ENCRYPTION_KEY is not set; expected base64 of 32 bytes"),
        ("  ", "PIPELINES_ENCRYPTION_KEY is not set; expected base64 of 32 bytes"),
        ("canary!canary", "PIPELINES_ENCRYPTION_KEY is not base64; expected base64 of 32 bytes"),
        ("canaryé", "PIPELINES_ENCRYPTION_KEY is not base64; expected base64 of 32 bytes"),
        ("canary==", "PIPELINES_ENCRYPTION_KEY decodes to 4 bytes; expected base64 of 32 bytes"),
    ],
)
def test_a_missing_or_malformed_key_is_one_line_without_the_value(value: str | None, message: str):
    environment = {} if value is None else {KEY_VARIABLE: value}
    with pytest.raises(EncryptionKeyError) as caught:
        cipher_from_environment(environment)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int):
    with pytest.raises(EncryptionKeyError, match=f"has {length} bytes, expected 32"):
        AesGcmCipher(bytes(length))
