"""The pipeline service's HTTP interface in this process and in one of its own, for tests."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import psycopg
from pydantic import SecretStr
from testyard.core.deadline import Deadline
from testyard.lab.pipelines.app import create_app
from testyard.lab.pipelines.encryption import cipher_from_environment
from testyard.lab.pipelines.settings import Settings

COMMAND = (sys.executable, "-m", "testyard.lab.pipelines")
ADMIN_KEY = "operator-key-of-the-tests"
ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode()
SECRETS: Mapping[str, str] = {"PIPELINES_ADMIN_KEY": ADMIN_KEY, "PIPELINES_ENCRYPTION_KEY": ENCRYPTION_KEY}
AS_ADMIN: Mapping[str, str] = {"X-Admin-Key": ADMIN_KEY}
CIPHER = cipher_from_environment(SECRETS)


def onboarding(tenant_id: str, plan: str = "PROFESSIONAL") -> dict[str, str]:
    """The body that makes a customer."""
    return {
        "tenant_id": tenant_id,
        "company_name": "Acme Corporation",
        "admin_email": "qa@example.com",
        "subscription_plan": plan,
    }


class Api:
    """The interface, called in this process."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self.url = url

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **options: Any
    ) -> httpx.Response:
        """A request as a customer, or as the operator without a key."""
        headers = dict(AS_ADMIN) if key is None else {"X-API-Key": key}
        if body is not None:
            options["json"] = body
        return await self._client.request(method, path, headers=headers, **options)

    async def send(self, method: str, path: str, headers: Mapping[str, str], **options: Any) -> httpx.Response:
        """A request with exactly these headers."""
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        return await self._client.request(method, path, headers=encoded, **options)

    async def good(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The body of the answer to a request that has to succeed."""
        answer = await self.call(method, path, body, key=key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def onboard(self, tenant_id: str = "acme", plan: str = "PROFESSIONAL") -> str:
        """Make a customer; gives its key."""
        onboarded = await self.good("POST", "/customers/onboard", onboarding(tenant_id, plan))
        key: str = onboarded["api_key"]
        return key

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What stands in the database."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement).fetchall()

    async def ended(self, run_id: str, key: str) -> dict[str, Any]:
        """The run, when it is not RUNNING any more."""
        deadline = Deadline(timedelta(seconds=10))
        while True:
            run: dict[str, Any] = await self.good("GET", f"/pipelines/runs/{run_id}", key=key)
            if run["state"] not in {"PENDING", "RUNNING"} or deadline.expired:
                return run


@asynccontextmanager
async def api_on(url: str) -> AsyncIterator[Api]:
    """The service on a database, in this process, with a test clock."""
    settings = Settings(
        database_url=SecretStr(url), admin_key=SecretStr(ADMIN_KEY), cipher=CIPHER, test_clock=True
    )
    application = create_app(settings)
    transport = httpx.ASGITransport(application)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://service/api/v1") as client,
    ):
        yield Api(client, url)


@dataclass
class RunningService:
    """A started process that takes requests.

    Args:
        process: The process.
        address: Its URL.
    """

    process: subprocess.Popen[str]
    address: str

    def onboard(self, tenant_id: str, plan: str = "STARTER") -> str:
        """Make a customer; gives its key."""
        body = {
            "tenant_id": tenant_id,
            "company_name": tenant_id,
            "admin_email": "qa@example.com",
            "subscription_plan": plan,
        }
        answer = httpx.post(f"{self.address}/api/v1/customers/onboard", json=body, headers=AS_ADMIN)
        answer.raise_for_status()
        key: str = answer.json()["api_key"]
        return key


@contextmanager
def running_service(url: str, *options: str, stderr: int | None = None) -> Iterator[RunningService]:
    """The service as a process on a free port; ended by the end of its standard input."""
    process = subprocess.Popen(
        [*COMMAND, "--database", url, "--port", "0", "--end-with-stdin", *options],
        env=dict(SECRETS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield RunningService(process, process.stdout.readline().strip())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)
