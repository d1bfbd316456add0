"""Keep secret values out of whatever is logged, whoever logs it.

stomp.py prints the passcode at DEBUG, HTTP clients print headers, exceptions quote answers. Every secret
in use is registered here once; log records are masked when they are made, and the keyword libraries mask
what reaches Robot Framework's log.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from testyard.core.errors import UserError

MASK = "***"
SECRET_PLACEHOLDER = "<secret>"
# Shorter texts would also mask innocent ones; no token of the systems under test is that short.
SHORTEST = 8
CUT = "..."


class SecretRegistry:
    """Every secret value this process uses.

    Example:
        >>> registry = SecretRegistry()
        >>> registry.add("0123456789abcdef")
        >>> registry.mask("Authorization: Token 0123456789abcdef")
        'Authorization: Token ***'
    """

    def __init__(self) -> None:
        # Reentrant: a signal that comes while a value is added is logged, and what is logged is masked.
        self._lock = threading.RLock()
        self._values: set[str] = set()
        # What may be left of a value where a text was cut short, and how long the longest value is.
        self._beginnings: set[str] = set()
        self._longest = 0
        # Looked for one by one: faster than one pattern of them all, which each new one makes anew.
        self._longest_first: tuple[str, ...] = ()
        # What was masked last, and with which values: several libraries mask each message, one after the other.
        self._masked_last: tuple[tuple[str, ...], str] = (), ""

    def add(self, *values: str) -> None:
        """Mask these values from now on.

        Raises:
            UserError: A value is Robot Framework's placeholder: a Secret was joined into a text and lost.
        """
        for value in values:
            refuse_placeholder(value)
        with self._lock:
            for value in values:
                if len(value) >= SHORTEST and value not in self._values:
                    self._beginnings.update(value[:length] for length in range(SHORTEST, len(value)))
                    self._longest = max(self._longest, len(value))
                    self._longest_first = tuple(sorted({*self._values, value}, key=len, reverse=True))
                    # Last: a value that is known is not looked at again, also after an interrupt.
                    self._values.add(value)

    def mask(self, text: str) -> str:
        """The text with every registered value replaced by ``***``."""
        values, masked = self._longest_first, self._masked_last
        if len(text) < SHORTEST or (masked[0] is values and masked[1] is text):
            return text
        for value in values:
            if value in text:
                text = text.replace(value, MASK)
        self._masked_last = values, text
        return text

    def mask_message(self, text: str) -> str:
        """The text masked, also where a value was cut short: Robot Framework ends long texts with ``...``."""
        masked = self.mask(text)
        if not masked.endswith(CUT):
            return masked
        stem = masked.removesuffix(CUT)
        beginnings = self._beginnings
        for length in range(min(self._longest - 1, len(stem)), SHORTEST - 1, -1):
            if stem[-length:] in beginnings:
                return stem[:-length] + MASK + CUT
        return masked

    def mask_value(self, value: Any) -> Any:
        """Mask texts and bytes, also inside mappings, sequences and sets; anything else is returned as it is."""
        match value:
            case str():
                return self.mask(value)
            case bytes():
                return self.mask(value.decode(errors="replace")).encode()
            case BaseException():
                return self.mask(f"{type(value).__name__}: {value}")
            case dict():
                return {self.mask_value(key): self.mask_value(item) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                masked = map(self.mask_value, value)
                return type(value)(*masked) if hasattr(value, "_fields") else type(value)(masked)
            case _:
                return value


def refuse_placeholder(value: str) -> None:
    """Refuse a text that holds ``<secret>`` where a secret's value was meant.

    Raises:
        UserError: Explains how the value was lost and what to do.
    """
    if SECRET_PLACEHOLDER in value:
        message = (
            "The text '<secret>' was about to be sent instead of a secret's value: a Secret variable was "
            "joined into a plain argument. Pass the Secret variable alone, or join it in a variable "
            "declared as '${name: Secret}'."
        )
        raise UserError(message)


# One for the process, as logging is.
secrets_in_use = SecretRegistry()


def mask_log_records(registry: SecretRegistry = secrets_in_use) -> None:
    """Mask registered secrets in every ``logging`` record of this process, before any handler sees it.

    Idempotent. A record factory is used because filters on loggers do not see what their children log.
    """
    inner = logging.getLogRecordFactory()
    if getattr(inner, "masks_secrets", False):
        return

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = inner(*args, **kwargs)
        if isinstance(record.msg, dict):
            record.msg = registry.mask_value(record.msg)
        else:
            try:
                text = record.getMessage()
            except (TypeError, ValueError, KeyError):
                text = f"{record.msg} {record.args}"  # a wrong format is shown, and breaks nobody
            record.msg, record.args = registry.mask(text), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = registry.mask(logging.Formatter().formatException(record.exc_info))
        return record

    make_record.masks_secrets = True  # type: ignore[attr-defined] # marks the function as installed
    logging.setLogRecordFactory(make_record)
