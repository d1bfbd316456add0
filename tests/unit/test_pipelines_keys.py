"""API keys and idempotency keys."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from testyard.lab.pipelines.keys import idempotency_key, key_hash, new_api_key


def test_a_key_has_the_documented_form_and_is_never_the_same_twice():
    keys = {new_api_key("acme_corp") for _ in range(500)}
    assert len(keys) == 500
    assert all(re.fullmatch(r"acme_corp_api_[A-Za-z0-9_-]{16}", key) for key in keys)


def test_a_key_is_stored_as_its_sha256():
    assert key_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_idempotency_key_is_the_sha256_of_configuration_and_utc_time():
    due = datetime(2026, 1, 1, 2, tzinfo=ZoneInfo("America/New_York"))
    assert idempotency_key("cfg_1", due) == hashlib.sha256(b"cfg_1:2026-01-01T07:00:00+00:00").hexdigest()


def test_one_instant_in_two_zones_is_one_run():
    due = datetime(2026, 1, 1, 7, tzinfo=UTC)
    assert idempotency_key("cfg_1", due) == idempotency_key("cfg_1", due.astimezone(ZoneInfo("Asia/Kolkata")))


def test_another_configuration_or_another_minute_is_another_run():
    due = datetime(2026, 1, 1, 7, tzinfo=UTC)
    keys = {
        idempotency_key("cfg_1", due),
        idempotency_key("cfg_2", due),
        idempotency_key("cfg_1", due + timedelta(minutes=1)),
    }
    assert len(keys) == 3


def test_the_two_passes_of_a_fold_are_two_runs():
    zone = ZoneInfo("Europe/Berlin")
    passes = [datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=fold) for fold in (0, 1)]
    assert idempotency_key("cfg_1", passes[0]) != idempotency_key("cfg_1", passes[1])


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no zone"):
        idempotency_key("cfg_1", datetime.fromisoformat("2026-01-01T07:00"))
