"""What the services write to their standard error while something is away."""

import logging
import re
from datetime import timedelta
from pathlib import Path

import pytest
from bridge_support import migrated, running_bus, service_process, until
from orchestrator_support import lab_settings
from testyard.lab.bridge.process import QUIET_AFTER, OneLinePerOutage
from testyard.lab.waiting import elapse


@pytest.fixture
def url(database_url: str) -> str:
    """The tables."""
    return migrated(database_url)


def record(name: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, "Unable to connect", None, None)


def test_a_talkative_library_says_one_line_in_an_outage_however_long_it_is():
    now = 0.0
    said = OneLinePerOutage(lambda: now)
    assert said.filter(record("aiokafka.consumer.fetcher"))
    for _ in range(100):
        now += QUIET_AFTER.total_seconds() / 2
        assert not said.filter(record("aiokafka"))
        assert not said.filter(record("aiokafka.conn"))
    now += QUIET_AFTER.total_seconds()
    assert said.filter(record("aiokafka")), "the next outage is told again"
    assert not said.filter(record("aiokafka"))


def test_each_library_is_heard_on_its_own_and_others_always():
    said = OneLinePerOutage(lambda: 0.0)
    for name in ("aiokafka", "psycopg.pool"):
        assert said.filter(record(name))
        assert not said.filter(record(name))
    for name in ("testyard.lab.bridge.outage", "aiokafkaesque", "psycopg", "root"):
        assert said.filter(record(name))
        assert said.filter(record(name))


@pytest.mark.anyio
async def test_an_outage_of_kafka_leaves_a_few_lines_behind(url: str, tmp_path: Path):
    told = tmp_path / "stderr"
    with running_bus() as kafka, told.open("wb") as stderr:
        settings = lab_settings(kafka.bootstrap_servers, tmp_path)
        with service_process("testyard.lab.bridge.reducer", settings, url, tmp_path, stderr=stderr.fileno()):
            kafka.down()
            await until(lambda: b"Unable" in told.read_bytes(), "it tells of the outage")
            await elapse(timedelta(seconds=2))
            kafka.up()
            await elapse(timedelta(seconds=1))
    lines = [it for it in told.read_text().splitlines() if re.search("kafka|Kafka|connect", it)]
    # Without a filter there are a hundred.
    assert 1 <= len(lines) <= 3, "\n".join(lines)
