"""The archive of Kafka's classes, made once by a broker at work: later ones start in half the time (JEP 310)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from confluent_kafka import Consumer, Producer

from testyard.lab.servers.kafka import KafkaCluster
from testyard.lab.servers.kafka_install import installed_kafka

TOPIC = "classes"
RECORDS = 100
CONSUME_SECONDS = 5
SHUT_DOWN_TIMEOUT = timedelta(seconds=60)


def archive_classes(say: Callable[[str], object]) -> None:
    """Write the archive, unless there is one for this Java.

    Args:
        say: Is told what is done, in one line.

    Raises:
        LabError: Kafka or Java is missing, or the broker did not start.
    """
    archive = installed_kafka().class_archive
    if archive.exists():
        return
    say("Preparing its classes, so that it starts in about a second.")
    part = archive.with_name(f"{archive.name}.{os.getpid()}.part")
    try:
        with KafkaCluster(1, new_class_archive=part) as kafka:
            kafka.create_topic(TOPIC)
            _use(kafka.bootstrap_servers)
            kafka.shut_broker_down(1, SHUT_DOWN_TIMEOUT)
        # A Java without such archives writes none, and needs none.
        with suppress(FileNotFoundError):
            part.replace(archive)
    finally:
        part.unlink(missing_ok=True)


def _use(bootstrap_servers: str) -> None:
    """Publish and read a few records, so that the broker has loaded what it needs for that."""
    common = {"bootstrap.servers": bootstrap_servers, "log_level": "0"}
    producer = Producer({**common, "enable.idempotence": "true"})
    for number in range(RECORDS):
        producer.produce(TOPIC, str(number).encode())
    producer.flush(SHUT_DOWN_TIMEOUT.total_seconds())
    consumer = Consumer({**common, "group.id": TOPIC, "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    consumer.poll(CONSUME_SECONDS)
    consumer.close()
