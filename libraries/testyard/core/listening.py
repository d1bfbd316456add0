"""What every keyword library does as a listener (Robot Framework's listener version 3, duck-typed)."""

from __future__ import annotations

from typing import Any

from testyard.core.redact import mask_log_records, secrets_in_use


class MaskingListener:
    """Masks registered secrets in everything that Robot Framework is about to write.

    Log messages are masked as they pass; failure messages of keywords, tests and suites too, as they reach
    the console and the result files without passing as log messages.
    """

    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self) -> None:
        mask_log_records()

    def log_message(self, message: Any) -> None:
        """Mask one log message."""
        message.message = secrets_in_use.mask_message(message.message)

    def message(self, message: Any) -> None:
        """Mask one system message."""
        message.message = secrets_in_use.mask_message(message.message)

    def end_keyword(self, data: Any, result: Any) -> None:
        """Mask a keyword's failure message."""
        result.message = secrets_in_use.mask_message(result.message)

    def end_test(self, data: Any, result: Any) -> None:
        """Mask a test's message."""
        result.message = secrets_in_use.mask_message(result.message)

    def end_suite(self, data: Any, result: Any) -> None:
        """Mask a suite's message."""
        result.message = secrets_in_use.mask_message(result.message)
