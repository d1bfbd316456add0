"""The world that the samples of a real Waldur were recorded in, made again on a Waldur double.

``tests/data/waldur`` holds recorded exchanges: the request, who sent it, and the answer. Their UUIDs and address
stand for objects of the recorded server. ``RecordedWorld`` sends a sample's request with the UUIDs of the double's
own objects in their place, and learns more of them from every answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from testyard.lab.supervisor import WaldurInstance
from testyard.waldur.api import Waldur
from testyard.waldur.provisioning import Provisioner
from testyard.waldur.states import Role
from waldur_comparison import IDENTIFIER, Answer, Difference, answer_differences

DIRECTORY = Path(__file__).parent / "data" / "waldur"
RECORDED_URL = "http://waldur.example"
NOBODY = "0" * 32
TOKEN_REFUSALS = {"badtoken_401": "stranger", "unauth_401": "anonymous"}
"""Samples of which only the answer was recorded, and a caller who gets it."""


@dataclass(frozen=True)
class Request:
    """What was sent, and as whom: ``staff``, ``owner``, ``manager``, ``member`` or ``provider``."""

    method: str
    path: str
    caller: str
    query: Mapping[str, Any] | None = None
    body: Any = None


@dataclass(frozen=True)
class Sample:
    """One recorded exchange."""

    name: str
    request: Request
    answer: Answer


@dataclass(frozen=True)
class Exchange:
    """One exchange with the double."""

    request: Request
    answer: Answer
    response: httpx.Response


def stored(name: str) -> Any:
    """The content of one file of the samples."""
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def names_of_samples() -> list[str]:
    """All files of the samples, also those that are no exchange."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


@cache
def sample(name: str) -> Sample:
    """One recorded exchange."""
    content = stored(name)
    if name in TOKEN_REFUSALS:
        request = Request("GET", "/api/users/me/", TOKEN_REFUSALS[name])
        json_headers = {"Content-Type": "application/json"}
        return Sample(name, request, Answer(content["status"], json_headers, content["body"]))
    sent = content["_request"]
    path = sent["path"].removeprefix(RECORDED_URL)
    request = Request(sent["method"], path, sent["as"], sent["params"], sent["body"])
    return Sample(name, request, Answer(content["_status"], content["_headers"], content["body"]))


class RecordedWorld:
    """The recorded world on one double.

    Args:
        instance: A fresh double.

    Attributes:
        tokens: API token by caller.
        exchanges: Everything that was asked, in order.
        provisioner: Creates more, as staff.
        replayed: The exchange with the double by the name of the sample.
    """

    def __init__(self, instance: WaldurInstance) -> None:
        self.instance = instance
        self.url = instance.url
        self.tokens = {"staff": instance.staff_token, "stranger": "0" * 40}
        self.exchanges: list[Exchange] = []
        self.replayed: dict[str, Exchange] = {}
        self._identifiers: dict[str, str] = {NOBODY: NOBODY}
        self._http = httpx.Client(base_url=self.url)
        self._callers: dict[str, Waldur] = {}
        self.provisioner = Provisioner(self.as_("staff"), "contract")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for caller in self._callers.values():
            caller.close()
        self._http.close()

    def as_(self, caller: str) -> Waldur:
        """The double as one user, for what is between the samples; whatever fails there raises."""
        if caller not in self._callers:
            self._callers[caller] = Waldur(self.url, self.tokens[caller], name=f"the double, to the {caller},")
        return self._callers[caller]

    def send(self, request: Request) -> Exchange:
        """Send a request whose UUIDs are the double's, and keep the answer whatever it is."""
        token = self.tokens.get(request.caller)
        response = self._http.request(
            request.method,
            request.path,
            params=request.query,
            json=request.body,
            headers={"Authorization": f"Token {token}"} if token else {},
        )
        exchange = Exchange(request, Answer(response.status_code, response.headers, _body(response)), response)
        self.exchanges.append(exchange)
        return exchange

    def ask(self, method: str, path: str, caller: str, body: Any = None, **query: Any) -> Exchange:
        """Send a request to ``/api/{path}``."""
        return self.send(Request(method, f"/api/{path}", caller, query or None, body))

    def add_person(self, caller: str, full_name: str = "", *roles: tuple[Role, str]) -> str:
        """Create a user who can call from now on, with roles on scopes; returns the UUID."""
        first, _, last = (full_name or caller).partition(" ")
        user = {"username": caller, "first_name": first, "last_name": last, "email": f"{caller}@peer.example.org"}
        uuid = str(self.as_("staff").post("users", user)["uuid"])
        self.tokens[caller] = self.provisioner.create_token(uuid)
        for role, scope in roles:
            self.provisioner.grant_role(role, uuid, scope)
        return uuid

    def order(self, name: str, caller: str = "owner", limits: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Order a resource of the recorded offering for the recorded project; the owner's need no approval."""
        offering = self.translated(sample("offering_get_public").answer.body)
        order: dict[str, Any] = self.as_(caller).post(
            "marketplace-orders",
            {
                "offering": offering["url"],
                "project": self.answer("project_create")["url"],
                "plan": offering["plans"][0]["url"],
                "attributes": {"name": name},
                "limits": limits or {"cpu": 10},
            },
        )
        return order

    def replay(self, *names: str) -> None:
        """Send the requests of samples, one after another, and learn UUIDs from the answers."""
        for name in names:
            recorded = sample(name)
            request = Request(**self.translated(vars(recorded.request)))
            unknown = set(IDENTIFIER.findall(json.dumps(vars(request)))) - set(self._identifiers.values())
            assert not unknown, f"{name} asks about {unknown}, which nothing before it has created"
            self.replayed[name] = self.send(request)
            self.learn(recorded.answer.body, self.replayed[name].answer.body)

    def learn(self, recorded: Any, answered: Any) -> None:
        """Note which of the double's UUIDs stand for recorded ones: those in the same places, the first time."""
        if isinstance(recorded, dict) and isinstance(answered, dict):
            for key in recorded.keys() & answered.keys():
                if key == "uuid" or key.endswith("_uuid"):
                    self.identify(recorded[key], answered[key])
                else:
                    self.learn(recorded[key], answered[key])
        elif isinstance(recorded, list) and isinstance(answered, list):
            for pair in zip(recorded, answered, strict=False):
                self.learn(*pair)

    def identify(self, recorded: str | None, answered: str | None) -> None:
        """Note that one of the double's objects stands for a recorded one, unless another one does already."""
        if recorded and answered:
            self._identifiers.setdefault(recorded, answered)

    def translated(self, value: Any) -> Any:
        """A recorded value with the double's UUIDs and address in place of the recorded ones."""
        text = IDENTIFIER.sub(lambda found: self.identifier(found[0]), json.dumps(value))
        return json.loads(text.replace(RECORDED_URL, self.url))

    def identifier(self, recorded: str) -> str:
        """The UUID on the double that stands for a recorded one; the recorded one when it is unknown."""
        return self._identifiers.get(recorded, recorded)

    def answer(self, name: str) -> Any:
        """The body that the double answered to a sample's request."""
        return self.replayed[name].answer.body

    def differences(self, name: str) -> list[Difference]:
        """Where the double's answer to a sample's request differs from the recorded one."""
        recorded = sample(name).answer
        translated = Answer(
            recorded.status, self.translated(dict(recorded.headers)), self.translated(recorded.body)
        )
        answered = self.replayed[name].answer
        return list(answer_differences(translated, answered, set(self._identifiers.values())))


def every_page(first: Exchange, world: RecordedWorld) -> Iterator[Exchange]:
    """An answered list and the pages after it, found as the agent's client finds them: by ``rel="next"``."""
    page = first
    yield page
    while "next" in page.response.links:
        url = httpx.URL(page.response.links["next"]["url"])
        query = {name: url.params.get_list(name) for name in url.params}
        page = world.send(Request("GET", url.path, first.request.caller, query))
        yield page


def _body(response: httpx.Response) -> Any:
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.json() if is_json and response.content else response.text
