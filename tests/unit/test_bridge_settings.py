"""The services' settings: the defaults are the documented values, and what is wrong is said in one sentence."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import reduce
from pathlib import Path

import pytest
from pydantic import BaseModel
from testyard.core.errors import ConfigurationError
from testyard.core.redact import MASK, secrets_in_use
from testyard.lab.bridge.settings import Settings, read_secrets, read_settings

NO_ENVIRONMENT: dict[str, str] = {}
URL = "postgresql://bridge:a-password-of-the-lab@127.0.0.1:5432/bridge"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


DOCUMENTED = [
    # Document 004, section 4, and its thresholds; contract page "event-bus", 3.7: the tests' event-bus breaker.
    ("bus.breaker.failures", 5),
    ("bus.breaker.open_for", seconds(30)),
    ("bus.breaker.successes", 3),
    ("bus.breaker.probes", 3),
    # 3.7: omnibase_infra's timeout, and the replay's limit.
    ("bus.request_timeout", seconds(30)),
    ("bus.replay_per_second", 100),
    # 3.7: the database breaker.
    ("database.breaker.failures", 5),
    ("database.breaker.open_for", seconds(60)),
    ("database.breaker.successes", 2),
    ("database.breaker.probes", 3),
    # 3.1, "cross": the timeouts that a workflow has for each service; document 004, section 3: five failures.
    ("orchestrator.stamping_timeout", seconds(5)),
    ("orchestrator.onextree_timeout", seconds(30)),
    ("orchestrator.breaker.failures", 5),
    # 3.7: the progressive timeout's grace.
    ("orchestrator.workflow_grace", seconds(30)),
    # 3.5: the adapter's consumer, and how it tries again.
    ("adapter.group", "database-adapter-effect-group"),
    ("adapter.poll_records", 100),
    ("adapter.poll", seconds(1)),
    ("adapter.retries", 3),
    ("adapter.retry_longest", seconds(60)),
    # 3.7: omnibase_infra's consumers.
    ("adapter.session_timeout", seconds(45)),
    ("adapter.heartbeat", seconds(15)),
    ("reducer.session_timeout", seconds(45)),
    ("reducer.heartbeat", seconds(15)),
    # 3.8: the stamping API.
    ("stamping.requests_per_minute", 1000),
    ("stamping.hashes_per_minute", 2000),
    ("stamping.largest_batch", 100),
    ("stamping.hash_threads", 4),
    # 3.1, 3.8 and 3.9: where services are without Consul; 3.10: its health check's times.
    ("discovery.fallback", {"metadata-stamping-service": "http://localhost:8053"}),
    ("discovery.fallback", {"onextree-service": "http://localhost:8058"}),
    ("discovery.fallback", {"omninode-bridge": "http://localhost:8080"}),
    ("discovery.consul", None),
    ("discovery.timeout", seconds(5)),
    ("discovery.heartbeat", seconds(10)),
    # 3.3: the environment in the topics' names.
    ("environment", "dev"),
]


@pytest.mark.parametrize(("name", "value"), DOCUMENTED, ids=[f"{name}={value}" for name, value in DOCUMENTED])
def test_the_default_is_the_documented_value(name, value):
    settings = read_settings(None, NO_ENVIRONMENT)
    found = reduce(getattr, name.split("."), settings)
    if isinstance(value, dict):
        assert found.items() >= value.items()
    else:
        assert found == value


def test_the_file_changes_what_it_names_and_nothing_else(tmp_path):
    path = _written(tmp_path, {"bus": {"breaker": {"open_for": 0.3}}, "region": "eu"})
    settings = read_settings(path, NO_ENVIRONMENT)
    assert settings.bus.breaker.open_for == seconds(0.3)
    assert settings.region == "eu"
    assert settings.database == Settings().database


def test_what_a_service_tells_of_its_settings_can_be_read_again(tmp_path):
    told = Settings().model_dump(mode="json")
    assert told["bus"]["breaker"]["open_for"] == "PT30S"
    assert read_settings(_written(tmp_path, told), NO_ENVIRONMENT) == Settings()


def test_the_documented_variable_wins_over_the_file(tmp_path):
    path = _written(tmp_path, {"bootstrap_servers": "file:9092"})
    assert read_settings(path, {"KAFKA_BOOTSTRAP_SERVERS": "variable:29092"}).bootstrap_servers == "variable:29092"
    assert read_settings(path, {"KAFKA_BOOTSTRAP_SERVERS": ""}).bootstrap_servers == "file:9092"
    assert read_settings(None, {"KAFKA_BOOTSTRAP_SERVERS": "variable:29092"}).bootstrap_servers == "variable:29092"


WRONG = [
    ({"bus": {"breaker": {"failures": 0}}}, "bus.breaker.failures: Input should be greater than or equal to 1"),
    ({"bus": {"breaker": {"open_for": 0}}}, "bus.breaker.open_for: Input should be greater than 0 seconds"),
    ({"bus": {"request_timeout": "soon"}}, "bus.request_timeout: Input should be a valid timedelta"),
    ({"bus": {"replay_per_second": 0}}, "bus.replay_per_second: Input should be greater than or equal to 1"),
    ({"bus": {"at_a_time": 0}}, "bus.at_a_time: Input should be greater than or equal to 1"),
    ({"database": {"pool": "many"}}, "database.pool: Input should be a valid integer"),
    ({"database": {"breaker": {"successes": -1}}}, "database.breaker.successes: Input should be greater than"),
    ({"orchestrator": {"stamping_timeout": -5}}, "orchestrator.stamping_timeout: Input should be greater than"),
    ({"adapter": {"poll_records": 10}}, "adapter.group: Field required"),
    ({"environment": "Dev"}, "environment: String should match pattern"),
    ({"environment": "a.b"}, "environment: String should match pattern"),
    ({"environment": "e" * 101}, "environment: String should have at most 100 characters"),
    ({"buss": {}}, "buss: Extra inputs are not permitted"),
    ({"bus": {"breaker": {"failure": 5}}}, "bus.breaker.failure: Extra inputs are not permitted"),
    (["bus"], "Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("given", "told"), WRONG, ids=[told[:40] for _, told in WRONG])
def test_what_is_wrong_is_named_in_one_sentence(tmp_path, given, told):
    path = _written(tmp_path, given)
    with pytest.raises(ConfigurationError) as caught:
        read_settings(path, NO_ENVIRONMENT)
    message = str(caught.value)
    assert message.startswith(f"The settings {path}: {told}")
    assert "found " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "are not JSON: Expecting property name"),
        (b"", "are not JSON: Expecting value"),
        (b"\xff\xfe\xfa", "are not JSON: "),
        (b"{'a': 1}", "are not JSON: Expecting property name"),
    ],
)
def test_a_file_that_is_not_json_is_told_so(tmp_path, content, told):
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_settings(path, NO_ENVIRONMENT)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_a_file_that_cannot_be_read_is_told_so(tmp_path):
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(ConfigurationError, match=f"The settings cannot be read: .*{path}"):
            read_settings(path, NO_ENVIRONMENT)


def test_a_value_that_is_given_cannot_be_changed_later():
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.bus = settings.bus


def test_every_setting_is_described():
    def undescribed(model: type[BaseModel]) -> set[str]:
        return {
            f"{model.__name__}.{name}"
            for name, field in model.model_fields.items()
            if f"        {name}: " not in f"    {model.__doc__}" and not _is_section(field.annotation)
        }

    sections = [it.annotation for it in Settings.model_fields.values() if _is_section(it.annotation)]
    assert set().union(*map(undescribed, [Settings, *sections])) == set()


def _is_section(annotation: object) -> bool:
    return (
        isinstance(annotation, type)
        and issubclass(annotation, BaseModel)
        and annotation.__name__ != "BreakerSettings"
    )


# ---- secrets


def test_the_secrets_come_from_the_environment_and_are_never_told(caplog):
    key = "a-signing-key-of-the-lab"
    secrets = read_secrets({"BRIDGE_DATABASE_URL": f" {URL}\n", "BRIDGE_SIGNING_KEY": key})
    assert secrets.database_url.get_secret_value() == URL
    assert secrets.signing_key is not None
    for told in (repr(secrets), str(secrets), secrets.model_dump_json(exclude={"signing_key"})):
        assert "a-password-of-the-lab" not in told
        assert key not in told
    assert secrets_in_use.mask(f"{key} a-password-of-the-lab") == f"{MASK} {MASK}"


def test_without_a_signing_key_nothing_is_signed():
    assert read_secrets({"BRIDGE_DATABASE_URL": URL}).signing_key is None
    assert read_secrets({"BRIDGE_DATABASE_URL": URL, "BRIDGE_SIGNING_KEY": ""}).signing_key is None


@pytest.mark.parametrize("environ", [{}, {"BRIDGE_DATABASE_URL": ""}, {"BRIDGE_DATABASE_URL": "  "}])
def test_a_database_that_is_not_named_is_told_so(environ):
    with pytest.raises(ConfigurationError, match=r"^BRIDGE_DATABASE_URL is not set; expected postgresql://"):
        read_secrets(environ)


@pytest.mark.parametrize("url", ["a-secret-word", "postgresql://[a-secret-word", "host=x password='a-secret-word"])
def test_a_database_that_is_named_wrongly_is_told_so_without_the_value(url):
    with pytest.raises(ConfigurationError) as caught:
        read_secrets({"BRIDGE_DATABASE_URL": url})
    assert str(caught.value) == "BRIDGE_DATABASE_URL is not the URL of a PostgreSQL database"
    assert caught.value.__cause__ is None


def _written(directory: Path, settings: object) -> Path:
    path = directory / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path
