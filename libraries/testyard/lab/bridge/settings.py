"""What the services are started with: one file for all of them; what is secret comes from the environment.

The defaults are the documented values (document 004; contract page "event-bus", 3.5, 3.7 and 3.9).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from testyard.core.errors import ConfigurationError
from testyard.core.redact import secrets_in_use
from testyard.lab.bridge.breaker import BreakerSettings
from testyard.lab.bridge.envelope import SigningKey

DATABASE_VARIABLE: Final = "BRIDGE_DATABASE_URL"
SIGNING_KEY_VARIABLE: Final = "BRIDGE_SIGNING_KEY"
BOOTSTRAP_VARIABLE: Final = "KAFKA_BOOTSTRAP_SERVERS"

Positive = Annotated[timedelta, Field(gt=timedelta(0))]
NotNegative = Annotated[timedelta, Field(ge=timedelta(0))]


class Section(BaseModel):
    """A part of the settings; a name that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BusSettings(Section):
    """How events are published.

    Attributes:
        request_timeout: How long the bus may take until a publication has failed.
        retry_backoff: How long a client waits before it asks a broker again.
        linger: How long a record waits for others to travel with.
        at_a_time: How many publications of a process are under way; the next one waits, or fails with the others.
        breaker: When nobody waits any more for the bus.
        replay_per_second: How many events that waited are published in a second, when the bus is back.
        replay_batch: How many of them are read from the outbox at a time.
        look_after: How often the outbox is looked at while there is something in it.
    """

    request_timeout: Positive = timedelta(seconds=30)
    retry_backoff: Positive = timedelta(milliseconds=100)
    linger: NotNegative = timedelta(0)
    at_a_time: int = Field(default=100, ge=1)
    breaker: BreakerSettings = BreakerSettings(failures=5, open_for=timedelta(seconds=30), successes=3)
    replay_per_second: int = Field(default=100, ge=1)
    replay_batch: int = Field(default=100, ge=1)
    look_after: Positive = timedelta(seconds=1)


class DatabaseSettings(Section):
    """How the tables are reached.

    Attributes:
        timeout: How long a statement or a connection may take.
        pool: Connections at most.
        breaker: When nobody waits any more for the database.
    """

    timeout: Positive = timedelta(seconds=5)
    pool: int = Field(default=10, ge=1)
    breaker: BreakerSettings = BreakerSettings(failures=5, open_for=timedelta(seconds=60), successes=2)


class OrchestratorSettings(Section):
    """How workflows are run.

    Attributes:
        stamping_timeout: How long stamping may take until the workflow fails.
        onextree_timeout: How long OnexTree may take until the workflow goes on without intelligence.
        workflow_timeout: How long a workflow may take; it warns at 80 % of it.
        workflow_grace: How much longer it may take before it is given up.
        breaker: When nobody waits any more for stamping, or for OnexTree; each has its own.
        concurrent_calls: How many calls to one service are under way at a time.
        at_work: How many workflows with intelligence, and how many without, are worked on at a time; those that
            were taken on first come first.
        hash_without_stamping: Whether the orchestrator hashes itself when stamping is not there.
        resume_after: How often workflows are looked for that another process has left unfinished.
    """

    stamping_timeout: Positive = timedelta(seconds=5)
    onextree_timeout: Positive = timedelta(seconds=30)
    workflow_timeout: Positive = timedelta(seconds=300)
    workflow_grace: Positive = timedelta(seconds=30)
    breaker: BreakerSettings = BreakerSettings()
    concurrent_calls: int = Field(default=32, ge=1)
    at_work: int = Field(default=64, ge=1)
    hash_without_stamping: bool = True
    resume_after: Positive = timedelta(seconds=30)


class ConsumerSettings(Section):
    """How a service consumes.

    Attributes:
        group: The consumer group.
        poll_records: Records of one poll, at most.
        poll: How long a poll waits for the first record.
        fetch_wait: How long a broker that has nothing new keeps a request until it answers.
        gather: How long a batch grows before it is handled: larger batches cost less, and are later.
        session_timeout: After so long without a heartbeat a member has left.
        heartbeat: How often it says that it is there.
        retries: How often a batch is tried again that the database has refused for now.
        retry_backoff: How long it waits before; each time one and a half times as long.
        retry_longest: How long it waits at most.
    """

    group: str
    poll_records: int = Field(default=100, ge=1)
    poll: Positive = timedelta(seconds=1)
    fetch_wait: Positive = timedelta(milliseconds=500)
    gather: NotNegative = timedelta(0)
    session_timeout: Positive = timedelta(seconds=45)
    heartbeat: Positive = timedelta(seconds=15)
    retries: int = Field(default=3, ge=0)
    retry_backoff: Positive = timedelta(seconds=1)
    retry_longest: Positive = timedelta(seconds=60)


class StampingSettings(Section):
    """How files are stamped.

    Attributes:
        requests_per_minute: How many requests of one kind a client may make.
        hashes_per_minute: How many times it may have something hashed.
        largest_batch: How many files may be stamped at once.
        hash_threads: How many threads hash large files.
        cached_stamps: How many stamps are remembered beside the table.
    """

    requests_per_minute: int = Field(default=1000, ge=1)
    hashes_per_minute: int = Field(default=2000, ge=1)
    largest_batch: int = Field(default=100, ge=1)
    hash_threads: int = Field(default=4, ge=1)
    cached_stamps: int = Field(default=1000, ge=1)


class OnextreeSettings(Section):
    """How OnexTree answers.

    Attributes:
        largest_tree: How many files a tree may have.
    """

    largest_tree: int = Field(default=100_000, ge=1)


class DiscoverySettings(Section):
    """How services find each other.

    Attributes:
        consul: Where Consul's HTTP API is; None: every service is looked for on this machine.
        timeout: How long Consul may take.
        fallback: Where a service is when Consul does not tell, by the service's name.
        heartbeat: How often the registered services are asked for their health.
    """

    consul: str | None = None
    timeout: Positive = timedelta(seconds=5)
    fallback: Mapping[str, str] = {
        "metadata-stamping-service": "http://localhost:8053",
        "onextree-service": "http://localhost:8058",
        "orchestrator-service": "http://localhost:8060",
        "reducer-service": "http://localhost:8061",
        "database-adapter-service": "http://localhost:8062",
        "omninode-bridge": "http://localhost:8080",
    }
    heartbeat: Positive = timedelta(seconds=10)


class TracingSettings(Section):
    """What becomes of traces.

    Attributes:
        otlp: Where they are sent to (OTLP over HTTP); None: they are only kept in memory.
        keep: How many spans a process keeps in memory; 0 switches tracing off.
    """

    otlp: str | None = None
    keep: int = Field(default=0, ge=0)


class Settings(Section):
    """The settings of all services.

    Attributes:
        environment: The first part of every topic's name.
        region: Where this is; told in every envelope.
        bootstrap_servers: Kafka, such as ``localhost:9092``.
        outbox_directory: Where events wait when neither Kafka nor PostgreSQL is there.
    """

    environment: str = Field(default="dev", pattern="^[a-z0-9][a-z0-9_-]*$", max_length=100)
    region: str | None = None
    bootstrap_servers: str = "localhost:9092"
    outbox_directory: Path = Path("outbox")
    bus: BusSettings = BusSettings()
    database: DatabaseSettings = DatabaseSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    reducer: ConsumerSettings = ConsumerSettings(group="reducer-group")
    adapter: ConsumerSettings = ConsumerSettings(group="database-adapter-effect-group")
    stamping: StampingSettings = StampingSettings()
    onextree: OnextreeSettings = OnextreeSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    tracing: TracingSettings = TracingSettings()


class Secrets(BaseModel):
    """What the environment holds.

    Attributes:
        database_url: From ``BRIDGE_DATABASE_URL``; may carry a password.
        signing_key: From ``BRIDGE_SIGNING_KEY``; None: envelopes are not signed.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    database_url: SecretStr
    signing_key: SigningKey | None = None


def read_settings(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        path: A JSON file; None: the documented defaults.
        environ: ``KAFKA_BOOTSTRAP_SERVERS`` of it wins over the file.

    Returns:
        The settings.

    Raises:
        ConfigurationError: The file cannot be read, or something in it is not right; names it.
    """
    given: object = {}
    if path is not None:
        try:
            given = json.loads(path.read_bytes())
        except OSError as problem:
            raise ConfigurationError(f"The settings cannot be read: {problem}.") from None
        except ValueError as problem:
            raise ConfigurationError(f"The settings {path} are not JSON: {problem}.") from None
    servers = environ.get(BOOTSTRAP_VARIABLE)
    if servers and isinstance(given, dict):
        given["bootstrap_servers"] = servers
    try:
        return Settings.model_validate(given)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = [f"The settings {path or 'of the environment'}", ".".join(map(str, first["loc"]))]
        message = f"{': '.join(filter(None, place))}: {first['msg']}, found {first['input']!r}."
        raise ConfigurationError(message) from None


def read_secrets(environ: Mapping[str, str] = os.environ) -> Secrets:
    """Read the secrets; they are never arguments, which every user of the machine can list.

    Raises:
        ConfigurationError: The database is not named, or in a way that PostgreSQL does not understand.
    """
    url = environ.get(DATABASE_VARIABLE, "").strip()
    if not url:
        raise ConfigurationError(f"{DATABASE_VARIABLE} is not set; expected postgresql://user:password@host/name")
    try:
        password = conninfo_to_dict(url).get("password")
    except psycopg.ProgrammingError:
        # What it says quotes the value.
        message = f"{DATABASE_VARIABLE} is not the URL of a PostgreSQL database"
        raise ConfigurationError(message) from None
    secrets_in_use.add(str(password or ""))
    key = environ.get(SIGNING_KEY_VARIABLE, "")
    secrets_in_use.add(key)
    return Secrets(database_url=SecretStr(url), signing_key=SigningKey(key) if key else None)
