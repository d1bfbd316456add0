"""What a workflow does without the services that it needs: slow ones, absent ones, ones that talk nonsense."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from blake3 import blake3
from bridge_support import events_of, proxy_to, served, until
from orchestrator_support import Bench, Neighbours, bench, neighbours, shape
from postgresql_support import private_schema
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from testyard.lab.bridge.discovery.services import STAMPING
from testyard.lab.bridge.orchestrator.services import Source
from testyard.lab.bridge.settings import OrchestratorSettings
from testyard.lab.bridge.topics import Route
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.postgresql import PostgresqlServer
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio

WITHOUT_INTELLIGENCE = "onextree_unavailable_skip_intelligence"
WITHOUT_STAMP = "metadata_stamping_in_memory_hash"
OPEN_FOR_LONG = {"failures": 5, "open_for": 600, "successes": 2, "probes": 3}


@pytest.fixture(scope="module")
def around(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """What the orchestrator works with."""
    with (
        private_schema(postgresql_server) as url,
        neighbours(url, tmp_path_factory.mktemp("neighbours")) as around,
    ):
        yield around


@pytest.fixture
async def lab(around: Neighbours, tmp_path: Path) -> AsyncIterator[Bench]:
    """An orchestrator with its services."""
    async with bench(around, tmp_path) as lab:
        yield lab


def test_the_documented_waits_are_the_defaults():
    settings = OrchestratorSettings()
    assert (settings.stamping_timeout, settings.onextree_timeout) == (timedelta(seconds=5), timedelta(seconds=30))
    assert (settings.breaker.failures, settings.breaker.open_for) == (5, timedelta(seconds=60))
    assert settings.workflow_grace == timedelta(seconds=30)
    assert settings.hash_without_stamping


def without_intelligence(workflow: dict[str, Any]) -> bool:
    """Whether a workflow completed without intelligence, and does not say that it has some."""
    return (workflow["state"], workflow["intelligence"], workflow["fallback_used"], workflow["fallbacks"]) == (
        "COMPLETED",
        None,
        True,
        [WITHOUT_INTELLIGENCE],
    ) and workflow["stamp"]["source"] == Source.SERVICE.value


async def test_without_onextree_a_workflow_completes_without_intelligence(lab: Bench):
    lab.onextree.refuse()
    workflow = await lab.run("without OnexTree", intelligence=True)
    assert without_intelligence(workflow)
    events = await lab.told(workflow, 8)
    assert shape(events)[3] == "onextree_intelligence skipped"
    assert "onextree-service does not answer" in events[3].payload["step_data"]["skipped"]
    (stamped,) = [
        it
        for it in await events_of(lab.kafka, Route.METADATA_STAMPED, 1)
        if it.envelope["correlation_id"] == workflow["correlation_id"]
    ]
    assert stamped.payload.get("intelligence_data") is None


async def test_a_slow_onextree_is_given_up_after_its_time(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path, onextree_timeout=0.5) as lab:
        lab.onextree.silence()
        began = time.monotonic()
        workflow = await lab.run(intelligence=True)
        assert without_intelligence(workflow)
        assert 450 <= workflow["steps"]["onextree_intelligence"] < 10_000
        assert time.monotonic() - began < 10
        events = await lab.told(workflow, 8)
        assert events[3].payload["step_data"] == {"skipped": "onextree timeout"}


async def test_five_failures_open_the_breaker_of_onextree_alone(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path, breaker=OPEN_FOR_LONG) as lab:
        lab.onextree.refuse()
        for _ in range(5):
            assert lab.breaker("onextree")["state"] == "closed"
            assert without_intelligence(await lab.run(intelligence=True))
        assert lab.breaker("onextree")["state"] == "open"
        assert lab.breaker("stamping")["state"] == "closed"
        assert lab.breaker("onextree")["totals"]["rejected"] == 0
        workflow = await lab.run(intelligence=True)
        assert without_intelligence(workflow)
        assert lab.breaker("onextree")["totals"]["rejected"] == 1
        skipped = (await lab.told(workflow, 8))[3].payload["step_data"]["skipped"]
        assert "circuit breaker onextree is open" in skipped


async def test_a_breaker_closes_when_the_service_is_back(lab: Bench):
    lab.onextree.refuse()
    for _ in range(5):
        await lab.run(intelligence=True)
    assert [it["to"] for it in lab.breaker("onextree")["transitions"]][:1] == ["open"]
    lab.onextree.heal()
    await until(lambda: lab.breaker("onextree")["state"] == "closed", "it has been tried again")
    workflow = await lab.run("def login(): ...", intelligence=True)
    assert workflow["intelligence"] is not None


async def test_without_stamping_the_hash_is_made_here_and_says_so(lab: Bench):
    lab.stamping.refuse()
    workflow = await lab.run("# Readme")
    assert (workflow["state"], workflow["fallback_used"]) == ("COMPLETED", True)
    assert workflow["fallbacks"] == [WITHOUT_STAMP]
    stamp = workflow["stamp"]
    assert (stamp["source"], stamp["stamp_id"]) == ("in_memory_fallback", None)
    assert stamp["file_hash"] == blake3(b"# Readme").hexdigest()
    assert len(stamp["file_hash"]) == 64
    assert "metadata-stamping-service does not answer" in stamp["reason"]
    events = await lab.told(workflow, 7)
    assert shape(events)[3:5] == ["hash_generation completed", "stamp_creation skipped"]
    assert events[3].payload["step_data"]["source"] == "in_memory_fallback"
    assert events[-1].payload["result"]["stamp"] == stamp


async def test_a_file_with_a_stamp_hashes_the_same_with_and_without_the_service(lab: Bench):
    stamped = "<!-- METADATA_STAMP:lightweight:blake3:" + "0" * 64 + " -->\n# Readme"
    by_the_service = await lab.run(stamped)
    lab.stamping.refuse()
    lab.stamping.cut()
    by_itself = await lab.run(stamped)
    assert by_itself["stamp"]["source"] == "in_memory_fallback"
    assert by_itself["stamp"]["file_hash"] == by_the_service["stamp"]["file_hash"]


async def test_without_stamping_and_without_the_fallback_a_workflow_fails(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path, hash_without_stamping=False) as lab:
        lab.stamping.refuse()
        workflow = await lab.run()
        assert (workflow["state"], workflow["stamp"]) == ("FAILED", None)
        assert "metadata-stamping-service does not answer" in workflow["error_message"]


async def test_a_stamping_service_that_takes_too_long_fails_the_workflow(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path, stamping_timeout=0.5) as lab:
        lab.stamping.silence()
        workflow = await lab.run("# Slow")
        assert (workflow["state"], workflow["error_message"]) == ("FAILED", "metadata stamping timeout")
        assert (workflow["stamp"], workflow["fallback_used"]) == (None, False)
        assert 500 <= workflow["execution_time_ms"] < 10_000
        events = await lab.told(workflow, 6)
        assert shape(events)[3:] == ["stamp_creation failed", "PROCESSING to FAILED", "WORKFLOW_FAILED"]
        assert lab.breaker("stamping")["failure_count"] == 1


async def test_five_timeouts_open_the_breaker_and_then_nobody_waits(around: Neighbours, tmp_path: Path):
    async with bench(around, tmp_path, stamping_timeout=0.5, concurrent_calls=5, breaker=OPEN_FOR_LONG) as lab:
        lab.stamping.silence()
        # Four may have got a place before the fifth failure; those behind them are not let through any more.
        workflows = await asyncio.gather(*(lab.run(f"# {it}") for it in range(20)))
        failed = [it["error_message"] for it in workflows if it["state"] == "FAILED"]
        assert set(failed) == {"metadata stamping timeout"}
        assert 5 <= len(failed) <= 9
        fallen_back = [it for it in workflows if it["fallbacks"] == [WITHOUT_STAMP]]
        assert len(fallen_back) == 20 - len(failed)
        assert lab.breaker("onextree")["state"] == "closed"


async def test_an_open_breaker_lets_nobody_wait_behind_those_whom_nobody_answers(
    around: Neighbours, tmp_path: Path
):
    breaker = {"failures": 1, "open_for": 60, "successes": 1, "probes": 1}
    async with bench(around, tmp_path, concurrent_calls=2, breaker=breaker) as lab:
        lab.stamping.silence()
        waiting = [asyncio.create_task(lab.run(f"# {it}")) for it in range(2)]
        await until(lambda: lab.breaker("stamping")["totals"]["calls"] == 2, "all places are taken")
        with pytest.raises(ConnectionError), lab.node.breakers["stamping"].call():
            raise ConnectionError
        workflow = await lab.run("# Readme")
        assert workflow["stamp"]["source"] == "in_memory_fallback"
        assert not any(it.done() for it in waiting)
        lab.stamping.heal()
        await asyncio.gather(*waiting)


async def test_a_slow_onextree_does_not_slow_workflows_that_do_not_need_it(around: Neighbours, tmp_path: Path):
    patient = {"onextree_timeout": 100, "workflow_timeout": 200}
    async with bench(around, tmp_path, concurrent_calls=4, **patient) as lab:
        lab.onextree.silence()
        slow = [asyncio.create_task(lab.run(f"# {it}", intelligence=True)) for it in range(300)]
        await until(lambda: len(lab.orchestrator.in_flight) == 300, "all of them are in flight")
        quick = [(await lab.run(f"# quick {it}"))["execution_time_ms"] for it in range(5)]
        assert not any(it.done() for it in slow)
        assert max(quick) < 50_000, "half of what OnexTree may take"
        lab.onextree.heal()
        assert all(it["intelligence"] for it in await asyncio.gather(*slow))


async def test_no_more_calls_than_places_are_under_way(around: Neighbours, tmp_path: Path):
    busy, most = 0, 0

    async def stamp(request: Request) -> Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await request.json()
        await elapse(timedelta(milliseconds=20))
        busy -= 1
        return JSONResponse({"error": [{"code": "NAMESPACE_INVALID"}], "message": "no such namespace"}, 400)

    async with standing_in(around, stamp) as stand_in, bench(stand_in, tmp_path, concurrent_calls=3) as lab:
        answers = await asyncio.gather(*(lab.run(f"# {it}") for it in range(30)))
        assert most == 3
        assert {it["error_message"] for it in answers} == {"NAMESPACE_INVALID: no such namespace"}


@asynccontextmanager
async def standing_in(around: Neighbours, stamp: Any) -> AsyncIterator[Neighbours]:
    """A stamping service that answers as a test wants it to."""
    path = "/api/v1/metadata-stamping/stamp"
    application = Starlette(routes=[HttpRoute(path, stamp, methods=["POST"])])
    async with served(application, with_lifespan=False) as url:
        yield Neighbours(around.kafka, around.url, url, around.onextree)


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        (JSONResponse({"message": "too many"}, 429), "in_memory_fallback"),
        (JSONResponse({"message": "broken"}, 500), "in_memory_fallback"),
        (JSONResponse({"data": {"file_hash": "0" * 63}}, 200), "in_memory_fallback"),
        (Response("<html>", 200), "in_memory_fallback"),
        (JSONResponse({"message": "no", "error": [{"code": "VERSION_MISMATCH"}]}, 409), None),
    ],
)
async def test_what_the_stamping_service_answers_decides_what_is_done(
    around: Neighbours, tmp_path: Path, answer: Response, source: str | None
):
    async def stamp(request: Request) -> Response:
        return answer

    async with standing_in(around, stamp) as stand_in, bench(stand_in, tmp_path) as lab:
        workflow = await lab.run()
        if source is None:
            assert workflow["error_message"] == "VERSION_MISMATCH: no"
        else:
            assert (workflow["state"], workflow["stamp"]["source"]) == ("COMPLETED", source)
            assert workflow["fallback_used"]


@dataclass
class Directory:
    """Says where the stamping service is, as Consul does.

    Attributes:
        url: Where it says that it is.
        asked: How often it was asked.
    """

    url: str
    asked: int = 0

    async def health(self, request: Request) -> Response:
        """``GET /v1/health/service/{name}``."""
        if request.path_params["name"] != STAMPING:
            return JSONResponse([])
        self.asked += 1
        parts = urlsplit(self.url)
        service = {"ID": "1", "Service": STAMPING, "Address": parts.hostname, "Port": parts.port}
        return JSONResponse([{"Node": {"Address": parts.hostname}, "Service": service, "Checks": []}])


async def test_services_are_found_by_discovery_once_and_again_when_they_have_moved(
    around: Neighbours, tmp_path: Path
):
    directory = Directory(around.stamping)
    consul = Starlette(routes=[HttpRoute("/v1/health/service/{name}", directory.health)])
    async with served(consul, with_lifespan=False) as url, bench(around, tmp_path, consul=url) as lab:
        lab.stamping.refuse()  # Where the settings say that it is; nobody looks there.
        began = time.monotonic()
        answers = await asyncio.gather(*(lab.run(f"# found {it}") for it in range(50)))
        assert {it["stamp"]["source"] for it in answers} == {"metadata_stamping"}
        assert directory.asked <= 1 + (time.monotonic() - began), "an answer is good for a second"
        with proxy_to(around.stamping) as moved:
            directory.url = f"http://{moved.host}:{moved.port}"
            await until_it_has_gone_there(lab, moved)
            moved.refuse()
            moved.cut()
            directory.url = around.stamping
            assert (await lab.run("# it has moved"))["stamp"]["source"] == "in_memory_fallback"
            # The address that has turned out to be wrong is not used once more.
            assert (await lab.run("# it is back"))["stamp"]["source"] == "metadata_stamping"


async def until_it_has_gone_there(lab: Bench, moved: FaultProxy) -> None:
    """Run workflows until one has used another address."""
    for number in range(1000):
        await lab.run(f"# on its way {number}")
        if moved.bytes_forwarded:
            return
    raise AssertionError("it is still asked at its old address")


async def test_what_nobody_has_thought_of_fails_one_workflow_and_not_the_service(lab: Bench):
    services = lab.orchestrator._services

    async def stamp(*given: Any) -> None:
        raise ZeroDivisionError("by nobody")

    services.stamp, before = stamp, services.stamp  # type: ignore[method-assign]
    workflow = await lab.run()
    assert (workflow["state"], workflow["error_message"]) == (
        "FAILED",
        "internal error: ZeroDivisionError: by nobody",
    )
    services.stamp = before  # type: ignore[method-assign]
    assert (await lab.run())["state"] == "COMPLETED"


async def test_a_workflow_warns_and_ends_when_its_time_is_over(
    around: Neighbours, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with bench(around, tmp_path, workflow_timeout=0.5, workflow_grace=0.3) as lab:
        lab.stamping.silence()
        workflow = await lab.run()
        assert (workflow["state"], workflow["error_message"]) == ("FAILED", "workflow timeout")
        assert workflow["execution_time_ms"] >= 800
        assert "has used up most of its time" in caplog.text
        assert lab.breaker("stamping")["failure_count"] == 0, "it had all of its own time still"


async def test_intelligence_is_left_out_when_the_time_is_over_and_the_grace_is_for_the_rest(
    around: Neighbours, tmp_path: Path
):
    async with bench(around, tmp_path, workflow_timeout=1, workflow_grace=20) as lab:
        lab.onextree.silence()
        workflow = await lab.run("# Readme", intelligence=True)
        assert without_intelligence(workflow)
        events = await lab.told(workflow, 8)
        assert events[3].payload["step_data"] == {"skipped": "the workflow's time is over"}
