"""Users: their tokens and passwords."""

import hashlib
import secrets

from testyard.lab.waldur.model import User
from testyard.lab.waldur.store import Store

STAFF_USERNAME = "staff"
_PASSWORD_ROUNDS = 1000
"""Few: a password of the lab protects nothing, and suites log in often."""


def new_token() -> str:
    """A token in the form of Django REST framework: 40 hexadecimal digits."""
    return secrets.token_hex(20)


def password_digest(password: str, user_identifier: str) -> str:
    """The stored form of a password."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), user_identifier.encode(), _PASSWORD_ROUNDS).hex()


def add_staff(store: Store, token: str) -> User:
    """Create the user that everything else is set up with."""
    return store.users.add(
        User(
            username=STAFF_USERNAME,
            slug=store.slug("user", STAFF_USERNAME),
            first_name="Staff",
            is_staff=True,
            token=token,
        )
    )
