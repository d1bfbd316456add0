"""What goes wrong with Kafka, in words for the people who read test logs."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from difflib import get_close_matches

from aiokafka.errors import AuthenticationFailedError, KafkaError, SaslAuthenticationFailed

from testyard.core.errors import UserError

MOST_TOPICS = 20
REFUSALS = (AuthenticationFailedError, SaslAuthenticationFailed)


class CannotConnectError(UserError):
    """No broker answers, or what answers does not let us in."""


class CredentialRefusedError(CannotConnectError):
    """The brokers know neither this user nor this password."""


class NoAnswerError(UserError):
    """The brokers do not answer, or not yet as they should."""


class UnknownTopicError(UserError):
    """There is no such topic."""


class UnsupportedRequestError(UserError):
    """The brokers do not know what they are asked."""


class RecordsGoneError(UserError):
    """Records that should be read are no longer there: retention has dropped them."""


def reason(problem: BaseException) -> str:
    """Why something failed, in a few words and without a full stop."""
    match problem:
        case ssl.SSLCertVerificationError():
            text = f"the broker's certificate is not trusted: {problem.verify_message}"
        case ssl.SSLError():
            text = f"TLS failed: {problem.reason or problem}"
        case socket.gaierror():
            text = f"the name is not known ({problem.strerror})"
        case TimeoutError():
            text = "no answer in time"
        case OSError(errno=int(number)) if number > 0:
            text = os.strerror(number)
        case KafkaError():
            # What the broker said, or what the protocol says of its answer; and what the protocol calls that.
            told = " ".join(part for part in problem.args if isinstance(part, str))
            told = told or getattr(problem, "description", "")
            text = ": ".join(filter(None, [getattr(problem, "message", ""), told])) or type(problem).__name__
        case _:
            text = str(problem) or type(problem).__name__
    return " ".join(text.split()).rstrip(".")


def unknown_topic(topic: str, known: Iterable[str]) -> UnknownTopicError:
    """The error for a topic that is not there: which ones are, those first that are written alike.

    Args:
        topic: The topic's name.
        known: The names of those there are.
    """
    names = sorted(name for name in known if not name.startswith("__"))
    alike = get_close_matches(topic, names, n=MOST_TOPICS, cutoff=0.8)
    shown = [*alike, *(name for name in names if name not in alike)]
    more = f" and {len(shown) - MOST_TOPICS} more" if len(shown) > MOST_TOPICS else ""
    there = ", ".join(shown[:MOST_TOPICS]) or "none"
    return UnknownTopicError(f"There is no topic {topic!r}; topics: {there}{more}.")
