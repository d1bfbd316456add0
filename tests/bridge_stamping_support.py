"""The metadata stamping service's interface, called in a test's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from bridge_support import PATIENCE, Event, called_here, events_of, secrets_of, store_stamp
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.stamping.app import create_app
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.kafka_mock import MockKafka

PREFIX = "/api/v1/metadata-stamping"
CONTENT = "# Readme\n\nWhat this is.\n"


class Api:
    """The service's interface, called in this process."""

    def __init__(self, client: httpx.AsyncClient, kafka: MockKafka, database_url: str) -> None:
        self.client = client
        self.kafka = kafka
        self.database_url = database_url

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """A request below the prefix."""
        if body is not None:
            options["json"] = body
        return await self.client.request(method, f"{PREFIX}{path}", **options)

    async def good(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The data of an answer to a request that has to succeed."""
        answer = await self.call(method, path, body, **options)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "success"
        return answer.json()["data"]

    async def stamp(self, content: str = CONTENT, **fields: Any) -> dict[str, Any]:
        """Stamp a file."""
        data: dict[str, Any] = await self.good(
            "POST", "/stamp", {"content": content, "file_path": "README.md", **fields}
        )
        return data

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        """The status and the code of an answer to a request that has to be refused."""
        answer = await self.call(method, path, body, **options)
        told = answer.json()
        assert (told["status"], bool(told["message"])) == ("error", True)
        codes = {problem["code"] for problem in told["error"]}
        assert len(codes) == 1, told
        return answer.status_code, codes.pop()

    async def events(self, *file_hashes: str, at_least: int = 1) -> list[Event]:
        """What was published of some contents; waits until there is so much."""
        found: list[Event] = []
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while len(found) < at_least:
                found = [it for it in await events_of(self.kafka, Route.METADATA_STAMPED) if it.key in file_hashes]
        return found

    async def store(self, *file_hashes: str) -> None:
        """Do what the database adapter does."""
        for event in await self.events(*file_hashes, at_least=len(file_hashes)):
            store_stamp(self.database_url, event.payload)


@asynccontextmanager
async def stamping_on(settings: Settings, kafka: MockKafka, database_url: str) -> AsyncIterator[Api]:
    """A running service."""
    async with called_here(create_app(settings, secrets_of(database_url))) as client:
        yield Api(client, kafka, database_url)
