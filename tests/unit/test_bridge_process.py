"""What the services write to their standard error."""

import logging

from testyard.lab.bridge.process import QUIET_AFTER, OneLinePerOutage


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
