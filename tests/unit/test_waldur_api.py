"""One Waldur as one user: paths, pages, what is read from answers and what becomes of errors."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from http_support import answer_with
from testyard.core.errors import UserError
from testyard.core.json_client import UnexpectedAnswerError
from testyard.waldur.api import PAGE_SIZE, Order, Resource, Waldur, limits_text
from testyard.waldur.states import OfferingState, OrderState, ResourceState, Role, Side

TOKEN = "api-token-of-nobody-0001"
HEX = "d629d5e45567425da9cdbdc1af67b32c"
DASHED = "d629d5e4-5567-425d-a9cd-bdc1af67b32c"
ORDER = {"uuid": HEX, "state": "done", "type": "Create", "offering_name": "not asked for"}


class Server:
    """Answers by method and path; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.requests: list[httpx.Request] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get((request.method, request.url.path))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, httpx.Response):
            return answer
        return (
            httpx.Response(404, json={"detail": "Not found."})
            if answer is None
            else httpx.Response(200, json=answer)
        )

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests if request.content]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    answer_with(server.handle, monkeypatch)
    return server


@pytest.fixture
def waldur(server: Server) -> Iterator[Waldur]:
    with Waldur("http://waldur.example/api/", TOKEN, name="Waldur A") as waldur:
        yield waldur


@pytest.mark.parametrize(
    "url",
    ["http://waldur.example", "http://waldur.example/", "http://waldur.example/api", "http://waldur.example/api/"],
)
def test_the_address_may_end_with_api_or_not(server, url):
    with Waldur(url, TOKEN) as waldur:
        assert waldur.url == "http://waldur.example"
        server.answers["GET", "/api/users/me/"] = {"username": "me"}
        assert waldur.get("users/me") == {"username": "me"}
    assert server.requests[0].headers["Authorization"] == f"Token {TOKEN}"


@pytest.mark.parametrize("url", ["http://api.example/api/", "http://waldur.example/pi", "http://waldur.aapi"])
def test_only_the_word_is_taken_from_the_end_of_an_address_not_its_letters(server, url):
    with Waldur(url, TOKEN) as waldur:
        assert waldur.url == url.rstrip("/").removesuffix("/api")


def test_links_have_hexadecimal_identifiers(waldur):
    assert waldur.link("projects", DASHED) == f"http://waldur.example/api/projects/{HEX}/"
    with pytest.raises(UserError, match="Expected a UUID"):
        waldur.link("projects", "simulation")


def test_what_is_not_there_is_none_and_other_errors_are_errors(server, waldur):
    assert waldur.find("projects/1") is None
    server.answers["GET", "/api/projects/1/"] = {"name": "x"}
    assert waldur.find("projects/1") == {"name": "x"}
    for status in (401, 403, 500):
        server.answers["GET", "/api/projects/1/"] = httpx.Response(status, json={})
        with pytest.raises(UnexpectedAnswerError, match=f"Waldur A answered {status}"):
            waldur.find("projects/1")


def pages_of(count: int, *, links: bool) -> Any:
    """A list of ``count`` objects, in pages as Waldur gives them: 404 beyond the last."""

    def answer(request: httpx.Request) -> httpx.Response:
        query = parse_qs(request.url.query.decode())
        page, size = int(query.get("page", ["1"])[0]), int(query["page_size"][0])
        last = max(1, -(-count // size))
        if page > last:
            return httpx.Response(404, json={"detail": "Invalid page."})
        link = f'<http://waldur.example/api/roles/?page={page + 1}&page_size={size}>; rel="next"'
        headers = {"X-Result-Count": str(count)} | ({"Link": link} if links and page < last else {})
        numbers = range((page - 1) * size, min(page * size, count))
        return httpx.Response(200, json=[{"number": number} for number in numbers], headers=headers)

    return answer


@pytest.mark.parametrize(
    "count", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 50]
)
def test_a_list_is_read_over_all_its_pages(server, waldur, count):
    server.answers["GET", "/api/roles/"] = pages_of(count, links=True)
    assert [role["number"] for role in waldur.all("roles", name="x")] == list(range(count))
    assert all("name=x" in str(request.url) for request in server.requests)


def test_a_list_is_read_only_as_far_as_it_is_needed(server, waldur):
    server.answers["GET", "/api/roles/"] = pages_of(3 * PAGE_SIZE, links=True)
    assert next(waldur.all("roles"))["number"] == 0
    assert len(server.requests) == 1


def test_an_error_on_a_page_is_an_error(server, waldur):
    server.answers["GET", "/api/roles/"] = httpx.Response(500, json={})
    with pytest.raises(UnexpectedAnswerError, match="answered 500"):
        list(waldur.all("roles"))


@pytest.mark.parametrize("uuid", [HEX, DASHED])
def test_an_order_is_read_whatever_form_its_identifier_has(server, waldur, uuid):
    server.answers["GET", f"/api/marketplace-orders/{HEX}/"] = ORDER | {"limits": {"cpu": 2}, "backend_id": "b"}
    order = waldur.order(uuid)
    assert order == Order(uuid=HEX, state=OrderState.DONE, type="Create", limits={"cpu": 2.0}, backend_id="b")


def test_a_resource_is_read_with_what_a_tester_asks(server, waldur):
    server.answers["GET", f"/api/marketplace-resources/{HEX}/"] = {
        "uuid": HEX,
        "name": "cluster",
        "state": "OK",
        "backend_id": None,
        "limits": {"cpu": 2},
        "more": "than asked",
    }
    assert waldur.resource(DASHED) == Resource(
        uuid=HEX, name="cluster", state=ResourceState.OK, backend_id=None, limits={"cpu": 2.0}
    )


def test_an_order_names_offering_plan_project_limits_and_name(server, waldur):
    server.answers["GET", f"/api/marketplace-public-offerings/{HEX}/"] = {
        "url": "the offering",
        "plans": [{"url": "the first plan"}, {"url": "another"}],
    }
    server.answers["POST", "/api/marketplace-orders/"] = httpx.Response(
        201, json=ORDER | {"state": "pending-consumer"}
    )
    order = waldur.place_order(DASHED, DASHED, {"cpu": 2}, "my cluster")
    assert order.state is OrderState.PENDING_CONSUMER
    assert server.bodies == [
        {
            "offering": "the offering",
            "project": f"http://waldur.example/api/projects/{HEX}/",
            "plan": "the first plan",
            "limits": {"cpu": 2},
            "attributes": {"name": "my cluster"},
        }
    ]


def test_a_refused_order_quotes_the_servers_explanation(server, waldur):
    server.answers["GET", f"/api/marketplace-public-offerings/{HEX}/"] = {"url": "x", "plans": [{"url": "y"}]}
    server.answers["POST", "/api/marketplace-orders/"] = httpx.Response(400, json={"limits": ["nope"]})
    with pytest.raises(UnexpectedAnswerError, match=r'Waldur A answered 400 to POST .*: {"limits":\["nope"\]}'):
        waldur.place_order(HEX, HEX, {"nope": 1}, "x")


def test_updates_and_terminations_return_their_order(server, waldur):
    server.answers["POST", f"/api/marketplace-resources/{HEX}/update_limits/"] = {"order_uuid": "u"}
    server.answers["POST", f"/api/marketplace-resources/{HEX}/terminate/"] = {"order_uuid": "t"}
    assert waldur.update_limits(DASHED, {"cpu": 5}) == "u"
    assert waldur.terminate(DASHED) == "t"
    assert server.bodies == [{"limits": {"cpu": 5}}, {}]


@pytest.mark.parametrize(("status", "fine"), [(204, True), (200, False), (202, False), (404, False)])
def test_a_deletion_must_be_told_by_204(server, waldur, status, fine):
    server.answers["DELETE", "/api/users/1/"] = httpx.Response(status)
    if fine:
        waldur.delete("users/1")
    else:
        with pytest.raises(UnexpectedAnswerError, match="expected 204"):
            waldur.delete("users/1")


def test_a_change_must_be_told_by_200(server, waldur):
    server.answers["PATCH", "/api/users/1/"] = httpx.Response(201, json={})
    with pytest.raises(UnexpectedAnswerError, match="expected 200"):
        waldur.patch("users/1", {"email": "x"})


@pytest.mark.parametrize(
    ("limits", "text"),
    [({}, "none"), ({"ram": 8, "cpu": 2.0}, "cpu=2, ram=8"), ({"storage": 0.5, "cpu": 0}, "cpu=0, storage=0.5")],
)
def test_limits_are_written_for_people(limits, text):
    assert limits_text(limits) == text


# ---- the words on the wire


@pytest.mark.parametrize("state", OrderState)
def test_an_order_has_ended_exactly_in_its_four_last_states(state):
    ended = {"done", "erred", "canceled", "rejected"}
    assert state.has_ended is (state.value in ended)


def test_a_state_that_waldur_does_not_have_is_no_state():
    with pytest.raises(ValueError, match="finished"):
        OrderState("finished")


def test_the_words_are_those_of_the_recorded_answers():
    assert ResourceState("Terminated") is ResourceState.TERMINATED
    assert OfferingState("Paused") is OfferingState.PAUSED
    assert Role("OFFERING.MANAGER") is Role.OFFERING_MANAGER
    assert [side.value for side in Side] == ["A", "B"]
