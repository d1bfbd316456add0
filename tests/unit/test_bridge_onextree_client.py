"""OnexTree as other services call it: repeated, remembered, scored, and never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bridge_support import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from testyard.lab.bridge import onextree_client
from testyard.lab.bridge.onextree.app import create_app
from testyard.lab.bridge.onextree_client import (
    CACHED_ENTRIES,
    CACHED_FOR,
    EVICTED_AT_ONCE,
    RETRIES,
    ConfidenceLevel,
    OnextreeClient,
    OnextreeRefusedError,
    OnextreeTimeoutError,
    OnextreeUnavailableError,
    confidence_of,
    degraded_intelligence,
)
from testyard.lab.bridge.settings import Settings
from testyard.lab.children import listening_socket
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio
ANSWER = {
    "intelligence": {"analysis_type": "api_analysis", "confidence_score": "0.88", "recommendations": ["Test."]},
    "patterns": [1, 2, 3],
    "relationships": [1, 2, 3],
    "metadata": {"coverage": 1.0},
}
SHORT = timedelta(milliseconds=200)


class Server:
    """Answers what it is told, one after the other; the last one again and again."""

    def __init__(self, *answers: Callable[[], Response]) -> None:
        self.answers = list(answers)
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.ports: list[int] = []

    async def answer(self, request: Request) -> Response:
        """The next answer."""
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        assert request.client is not None
        self.ports.append(request.client.port)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()


def well() -> Response:
    """A good answer."""
    return JSONResponse(ANSWER)


def broken() -> Response:
    """The answer of a service that has a problem."""
    return JSONResponse({"detail": "out of order"}, 500)


@asynccontextmanager
async def calling(server: Server, **options: Any) -> AsyncIterator[OnextreeClient]:
    """A client of a server."""
    application = Starlette(routes=[Route("/intelligence", server.answer, methods=["POST"])])
    async with (
        served(application, with_lifespan=False) as url,
        OnextreeClient(Settings(), url=url, **options) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("quality", "patterns", "coverage", "relationships", "confidence"),
    [
        (0.0, 0, 0.0, 0, 0.0),
        (1.0, 0, 0.0, 0, 0.35),
        (0.0, 3, 0.0, 0, 0.30),
        (0.0, 99, 0.0, 0, 0.30),
        (0.0, 1, 0.0, 0, 0.10),
        (0.0, 0, 1.0, 0, 0.20),
        (0.0, 0, 0.0, 3, 0.15),
        (1.0, 3, 1.0, 3, 1.0),
        (0.9, 3, 1.0, 3, 0.965),
    ],
)
def test_confidence_is_weighed(
    quality: float, patterns: int, coverage: float, relationships: int, confidence: float
) -> None:
    assert confidence_of(quality, patterns, coverage, relationships) == pytest.approx(confidence)


@pytest.mark.parametrize(
    ("confidence", "level"),
    [
        (1.0, "HIGH"),
        (0.8, "HIGH"),
        (0.79, "MEDIUM"),
        (0.5, "MEDIUM"),
        (0.49, "LOW"),
        (0.2, "LOW"),
        (0.19, "MINIMAL"),
    ],
)
def test_confidence_has_levels(confidence: float, level: str) -> None:
    assert ConfidenceLevel.of(confidence).name == level


async def test_intelligence_is_scored() -> None:
    server = Server(well)
    async with calling(server, headers=lambda: {"traceparent": "00-1"}) as client:
        found = await client.intelligence("api/users.py", include_relationships=False)

    assert found.analysis_type == "api_analysis"
    assert found.confidence_score == pytest.approx(0.35 * 0.88 + 0.65)
    assert (found.confidence_level, found.quality, found.recommendations) == ("HIGH", 0.88, ("Test.",))
    assert (found.degraded, found.reason, found.cached) == (False, None, False)
    assert server.bodies == [{"context": "api/users.py", "include_patterns": True, "include_relationships": False}]
    assert server.headers[0]["traceparent"] == "00-1"


async def test_the_same_question_is_asked_once() -> None:
    server = Server(well)
    async with calling(server) as client:
        first = await client.intelligence("a")
        again = await client.intelligence("a")
        await client.intelligence("a", include_patterns=False)
        await client.intelligence("b")

    assert (first.cached, again.cached) == (False, True)
    assert again.model_copy(update={"cached": False}) == first
    assert len(server.bodies) == 3


async def test_what_is_known_only_without_a_project_is_not_remembered() -> None:
    minimal = {**ANSWER, "intelligence": {"analysis_type": "minimal", "confidence_score": "0.00"}}
    server = Server(lambda: JSONResponse({**minimal, "patterns": [], "relationships": [], "metadata": {}}), well)
    async with calling(server) as client:
        nothing = await client.intelligence("a")
        something = await client.intelligence("a")

    assert (nothing.confidence_score, nothing.confidence_level, nothing.degraded) == (0.0, "MINIMAL", False)
    assert something.confidence_level == "HIGH"


async def test_a_full_cache_gives_up_a_fifth_that_was_not_used_for_the_longest_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onextree_client, "CACHED_ENTRIES", 10)
    server = Server(well)
    async with calling(server) as client:
        for number in range(10):
            await client.intelligence(str(number))
        await client.intelligence("0")
        asked = len(server.bodies)
        await client.intelligence("one more")
        cached = [(await client.intelligence(name)).cached for name in ("0", "3", "9", "one more")]
        forgotten = [(await client.intelligence(name)).cached for name in ("2", "1")]

    assert asked == 10
    assert (cached, forgotten) == ([True] * 4, [False] * 2)


def test_so_much_is_remembered_for_so_long() -> None:
    assert (timedelta(seconds=300), 1000, 0.2, 3) == (CACHED_FOR, CACHED_ENTRIES, EVICTED_AT_ONCE, RETRIES)


async def test_what_was_remembered_for_too_long_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onextree_client, "CACHED_FOR", timedelta(milliseconds=1))
    server = Server(well)
    async with calling(server) as client:
        await client.intelligence("a")
        await elapse(timedelta(milliseconds=10))
        again = await client.intelligence("a")

    assert (again.cached, len(server.bodies)) == (False, 2)


async def test_a_service_that_has_a_problem_is_asked_again() -> None:
    server = Server(broken, broken, well)
    async with calling(server) as client:
        found = await client.intelligence("a")

    assert (found.degraded, len(server.bodies)) == (False, 3)


async def test_it_is_asked_so_often_and_not_more() -> None:
    server = Server(broken)
    async with calling(server, retries=1) as client:
        with pytest.raises(OnextreeUnavailableError, match="out of order"):
            await client.intelligence("a")

    assert len(server.bodies) == 2


async def test_one_call_after_the_other_takes_one_connection() -> None:
    server = Server(well)
    async with calling(server) as client:
        for number in range(5):
            await client.intelligence(str(number))
        one_by_one = set(server.ports)
        await asyncio.gather(*(client.intelligence(f"together {number}") for number in range(5)))

    assert len(one_by_one) == 1
    assert len(set(server.ports)) <= 5


async def test_what_is_refused_is_not_asked_again() -> None:
    server = Server(lambda: JSONResponse({"detail": "no such context"}, 422))
    async with calling(server) as client:
        with pytest.raises(OnextreeRefusedError, match="no such context") as refused:
            await client.intelligence("a")

    assert (refused.value.status, len(server.bodies)) == (422, 1)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: PlainTextResponse("hello"),
        lambda: JSONResponse([]),
        lambda: JSONResponse({**ANSWER, "intelligence": {"analysis_type": "x", "confidence_score": "2.0"}}),
        lambda: JSONResponse({**ANSWER, "intelligence": {"analysis_type": "x"}}),
    ],
)
async def test_an_answer_that_is_not_understood_is_no_intelligence(answer: Callable[[], Response]) -> None:
    async with calling(Server(answer), retries=0) as client:
        with pytest.raises(OnextreeUnavailableError):
            await client.intelligence("a")


async def test_nobody_there_is_told_at_once() -> None:
    with listening_socket("127.0.0.1", 0) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with OnextreeClient(Settings(), url=url, retries=1) as client:
        with pytest.raises(OnextreeUnavailableError, match="onextree-service does not answer"):
            await client.intelligence("a")


async def test_a_service_that_takes_too_long_is_told_as_a_timeout_too() -> None:
    with listening_socket("127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with OnextreeClient(Settings(), url=url, timeout=SHORT, retries=0) as client:
            with pytest.raises(OnextreeTimeoutError) as late:
                await client.intelligence("a")

    assert isinstance(late.value, TimeoutError)


async def test_a_caller_that_gives_up_leaves_a_client_that_works() -> None:
    server = Server(well)
    async with calling(server) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await client.intelligence("a")
        assert (await client.intelligence("a")).confidence_level == "HIGH"


async def test_intelligence_that_could_not_be_had_is_never_taken_for_some() -> None:
    fallback = degraded_intelligence("the circuit breaker onextree is open")

    assert (fallback.degraded, fallback.confidence_score, fallback.quality) == (True, 0, 0)
    assert fallback.confidence_level == "MINIMAL"
    assert (fallback.patterns, fallback.relationships, fallback.recommendations) == ((), (), ())
    assert fallback.reason == "the circuit breaker onextree is open"


async def test_the_real_service_and_the_client_understand_each_other(tmp_path: Path) -> None:
    for name in ("login.py", "auth.md", "session.sql", "readme.txt"):
        (tmp_path / f"auth_{name}").write_text(name, encoding="utf-8")
    async with served(create_app(Settings())) as url, OnextreeClient(Settings(), url=url) as client:
        before = await client.intelligence("src/login.py")
        made = await client.generate(str(tmp_path))
        after = await client.intelligence("src/login.py")
        found = await client.query(".py")
        with pytest.raises(OnextreeRefusedError):
            await client.generate(str(tmp_path / "nothing"))

    assert (before.analysis_type, before.confidence_score) == ("minimal", 0.0)
    assert made["total_files"] == 4
    assert (after.analysis_type, after.confidence_score > 0.9) == ("security_analysis", True)
    assert [it["name"] for it in found] == ["auth_login.py"]


async def test_where_it_is_comes_from_the_settings() -> None:
    async with served(create_app(Settings())) as url:
        discovery = {"fallback": {"onextree-service": url}}
        async with OnextreeClient(Settings.model_validate({"discovery": discovery})) as client:
            assert (await client.intelligence("x")).analysis_type == "minimal"
        unknown = Settings.model_validate({"discovery": {"fallback": {}}})
        async with OnextreeClient(unknown, retries=0) as client:
            with pytest.raises(OnextreeUnavailableError, match="nobody knows where"):
                await client.intelligence("x")
