"""The pipeline service keeps to its OpenAPI document, whatever it is sent."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import requests
import schemathesis
from pipelines_api_support import ADMIN_KEY, AS_ADMIN, RunningService, running_service
from pydantic import SecretStr
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from testyard.lab.pipelines.app import create_app
from testyard.lab.pipelines.encryption import AesGcmCipher
from testyard.lab.pipelines.settings import Settings
from testyard.lab.servers.postgresql import PostgresqlServer

TENANT = "acme"
CLOCK = "/api/v1/test-clock"
CONFIGURE = "/api/v1/customers/pipelines/configure"


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """A service of its own."""
    with (
        PostgresqlServer(durable=False) as server,
        running_service(server.create_database("fuzzed"), "--test-clock") as service,
    ):
        yield service


@pytest.fixture(scope="module")
def session(service: RunningService) -> Iterator[requests.Session]:
    """Connections to the service, with what opens every route."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update({**AS_ADMIN, "X-API-Key": service.onboard(TENANT, "ENTERPRISE")})
        yield session


settings = Settings(
    database_url=SecretStr("unused"),
    admin_key=SecretStr(ADMIN_KEY),
    cipher=AesGcmCipher(bytes(32)),
    test_clock=True,
)
schema = schemathesis.openapi.from_dict(create_app(settings).openapi())
# What jsonb cannot hold, and no JSON schema can say.
schema.config.generation.allow_x00 = False
schema.config.phases.coverage.unexpected_methods = {"PATCH"}
bounded = hypothesis.settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


@schema.exclude(path=CLOCK).parametrize()
@bounded
def test_every_answer_is_declared(case: Case, service: RunningService, session: requests.Session) -> None:
    _send(case, service, session)


# Last: keys expire by this clock.
@schema.include(path=CLOCK).parametrize()
@bounded
def test_the_clock_too(case: Case, service: RunningService, session: requests.Session) -> None:
    _send(case, service, session)


def _send(case: Case, service: RunningService, session: requests.Session) -> None:
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
        # Otherwise most would end with 404 before anything is looked at.
        for name in ("customer_id", "tenant_id"):
            if name in case.path_parameters and case.method != "DELETE":
                case.path_parameters[name] = TENANT
    # No pattern says which schedules and zones there are.
    excluded = [positive_data_acceptance] if case.path == CONFIGURE else []
    case.call_and_validate(base_url=service.address, session=session, excluded_checks=excluded)
