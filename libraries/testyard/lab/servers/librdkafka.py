"""librdkafka by ctypes: what the mock Kafka cluster needs of it, as its Python package does not show that.

Source: librdkafka 2.16, ``rdkafka.h`` and ``rdkafka_mock.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from testyard.lab.children import LabError

ANSWER_TIMEOUT = timedelta(seconds=5)
PRODUCER = 0
TEXT_LENGTH = 512


class Handle:
    """A client of librdkafka: the mock cluster needs one for its own bookkeeping.

    Args:
        library: librdkafka.
        settings: Its configuration properties.
    """

    def __init__(self, library: ctypes.CDLL, settings: Mapping[str, str] | None = None) -> None:
        self._library = library
        text = ctypes.create_string_buffer(TEXT_LENGTH)
        configuration = library.rd_kafka_conf_new()
        # Otherwise it writes to this process's standard error.
        library.rd_kafka_conf_set_log_cb(configuration, None)
        for name, value in (settings or {}).items():
            library.rd_kafka_conf_set(configuration, name.encode(), value.encode(), text, TEXT_LENGTH)
        self.pointer = library.rd_kafka_new(PRODUCER, configuration, text, TEXT_LENGTH)
        if not self.pointer:
            message = f"librdkafka could not be started: {text.value.decode()}."
            raise LabError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_destroy(self.pointer)

    def beginning(self, topic: str, partition: int) -> int:
        """The first offset that a partition has."""
        low, high = ctypes.c_int64(), ctypes.c_int64()
        error = self._library.rd_kafka_query_watermark_offsets(
            self.pointer,
            topic.encode(),
            partition,
            ctypes.byref(low),
            ctypes.byref(high),
            round(ANSWER_TIMEOUT.total_seconds() * 1000),
        )
        if error:
            reason = self._library.rd_kafka_err2str(error).decode()
            message = f"The offsets of {topic!r} partition {partition} cannot be asked for: {reason}."
            raise LabError(message)
        return low.value


@cache
def librdkafka() -> ctypes.CDLL:
    """librdkafka, from wherever the wheel of ``confluent-kafka`` put it.

    Raises:
        LabError: It is not there.
    """
    specification = find_spec("confluent_kafka")
    if specification is None or specification.origin is None:
        message = (
            "The mock Kafka cluster needs the package confluent-kafka: pip install 'robotframework-testyard[lab]'."
        )
        raise LabError(message)
    package = Path(specification.origin).parent
    # Where auditwheel (Linux) and delocate (macOS) put the libraries of a wheel.
    places = [
        (package.parent / "confluent_kafka.libs", "librdkafka-*.so*"),
        (package / ".dylibs", "librdkafka*.dylib"),
    ]
    found = [path for directory, pattern in places for path in sorted(directory.glob(pattern))]
    if not found:
        message = (
            f"The mock Kafka cluster needs the librdkafka that the wheel of confluent-kafka brings; there is none "
            f"beside {package}: it was built from source. Install the wheel."
        )
        raise LabError(message)
    library = ctypes.CDLL(str(found[0]))
    _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Say what the functions take and give: without that, a pointer would be cut to 32 bits."""
    pointer, text, whole, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    offsets = ctypes.POINTER(ctypes.c_int64)
    # The errors and delays that follow the last one's arguments are variadic.
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (whole, [pointer, text, text, text, size]),
        "rd_kafka_conf_set_log_cb": (None, [pointer, pointer]),
        "rd_kafka_new": (pointer, [whole, pointer, text, size]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_err2str": (text, [whole]),
        "rd_kafka_query_watermark_offsets": (whole, [pointer, text, ctypes.c_int32, offsets, offsets, whole]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, whole]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_topic_create": (whole, [pointer, text, whole, whole]),
        "rd_kafka_mock_topic_delete": (whole, [pointer, text]),
        "rd_kafka_mock_partition_delete_records": (whole, [pointer, text, ctypes.c_int32, ctypes.c_int64]),
        "rd_kafka_mock_partition_set_leader": (whole, [pointer, text, ctypes.c_int32, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_down": (whole, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (whole, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_host_port": (None, [pointer, ctypes.c_int32, text, whole]),
        "rd_kafka_mock_broker_set_rtt": (whole, [pointer, ctypes.c_int32, whole]),
        "rd_kafka_mock_coordinator_set": (whole, [pointer, text, text, ctypes.c_int32]),
        "rd_kafka_mock_clear_request_errors": (None, [pointer, ctypes.c_int16]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, size, ctypes.POINTER(whole)],
        ),
        "rd_kafka_mock_broker_push_request_error_rtts": (whole, [pointer, ctypes.c_int32, ctypes.c_int16, size]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
