"""What the double publishes arrives over STOMP with the keys, types and headers of recorded frames."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from testyard.core.deadline import Deadline
from testyard.core.journal import Journal
from testyard.stomp.capture import Event
from testyard.stomp.channel import Channel, open_channel
from testyard.waldur.states import Role
from waldur_comparison import IDENTIFIER, body_differences
from waldur_support import RecordedWorld, stored

PATIENCE = timedelta(seconds=10)
FRAMES = [
    pytest.param(frame, id=f"{frame['via']}-{number}")
    for kind in ("unified", "legacy")
    for number, frame in enumerate(stored(f"hybrid_stomp_{kind}_frames")["frames"])
]
TELLING = ("object_type", "order_state", "action", "granted")
"""Keys whose values tell the recorded frames of a queue apart."""
SAME_HEADERS = ("durable", "auto-delete", "persistent", "content-type", "redelivered")
SHAPES = stored("_upstream_event_shapes")


@dataclass(frozen=True)
class Happened:
    """What agents heard, and the order that some of it was about."""

    channels: dict[str, Channel]
    order: str

    def event(self, channel: str, telling: dict[str, Any]) -> Event:
        """Wait for an event whose body contains something."""
        return self.channels[channel].capture.wait_for(
            lambda event: telling.items() <= event.body.items(), Deadline(PATIENCE), f"an event with {telling}"
        )

    def event_like(self, frame: dict[str, Any]) -> Event:
        """Wait for an event that tells what a recorded frame tells."""
        body = json.loads(frame["body_raw"])
        return self.event(frame["via"], {key: body[key] for key in TELLING if key in body})


@pytest.fixture(scope="module")
def happened(recorded_world: RecordedWorld) -> Iterator[Happened]:
    """Everything that was recorded as a frame, while an agent of today and an older one are listening."""
    with ExitStack() as stack:
        journal = stack.enter_context(closing(Journal()))
        channels = {
            name: stack.enter_context(closing(_listen(recorded_world, journal, name, registration)))
            for name, registration in (
                *_register_an_agent_of_today(recorded_world),
                *_register_an_older_agent(recorded_world),
            )
        }
        yield _make_it_happen(recorded_world, channels)


def _register_an_agent_of_today(world: RecordedWorld) -> Iterator[tuple[str, dict[str, str]]]:
    offering = world.answer("offering_create")["uuid"]
    world.add_person("unified", "", (Role.OFFERING_MANAGER, offering))
    agent = world.as_("unified")
    identity = agent.post("marketplace-site-agent-identities", {"offering": offering, "name": "unified"})
    queue = agent.post(
        f"marketplace-site-agent-identities/{identity['uuid']}/register_queue", {"object_types": []}
    )
    yield "unified", queue | {"caller": "unified", "login": queue["rmq_username"]}


def _register_an_older_agent(world: RecordedWorld) -> Iterator[tuple[str, dict[str, str]]]:
    offering = world.answer("offering_create")["uuid"]
    world.add_person("legacy", "", (Role.OFFERING_MANAGER, offering))
    agent = world.as_("legacy")
    for kind in ("order", "offering_user"):
        subscription = agent.post("event-subscriptions", {"observable_objects": [{"object_type": kind}]})
        body = {"offering_uuid": offering, "object_type": kind}
        queue = agent.post(f"event-subscriptions/{subscription['uuid']}/create_queue", body)
        yield f"legacy-{kind}", queue | {"caller": "legacy", "login": subscription["uuid"]}


def _listen(world: RecordedWorld, journal: Journal, name: str, registration: dict[str, str]) -> Channel:
    return open_channel(
        name,
        journal,
        host=world.instance.host,
        port=world.instance.port,
        path="/rmqws-stomp",
        vhost=registration["vhost"],
        login=registration["login"],
        passcode=world.tokens[registration["caller"]],
        queue=registration["queue_name"],
        use_tls=False,
        within=PATIENCE,
    )


def _make_it_happen(world: RecordedWorld, channels: dict[str, Channel]) -> Happened:
    provider, owner = world.as_("provider"), world.as_("owner")
    offering, project = (world.answer(name)["uuid"] for name in ("offering_create", "project_create"))

    order = world.order("heard of", "manager")
    resource = order["marketplace_resource_uuid"]
    owner.post(f"marketplace-orders/{order['uuid']}/approve_by_consumer")
    provider.post(f"marketplace-orders/{order['uuid']}/approve_by_provider")
    provider.post(f"marketplace-provider-resources/{resource}/set_backend_id", {"backend_id": "acct"})
    provider.post(f"marketplace-orders/{order['uuid']}/set_state_done")

    member = world.add_person("hearsay", "", (Role.PROJECT_MEMBER, project))
    world.provisioner.name_offering_user(offering, member, "hearsay01")
    role = next(each["uuid"] for each in world.answer("roles_list") if each["name"] == "PROJECT.MEMBER")
    owner.post(f"projects/{project}/delete_user", {"user": member, "role": role})

    provider.post(f"marketplace-provider-resources/{resource}/set_paused", {"paused": True})
    return Happened(channels, order["uuid"])


@pytest.mark.parametrize("frame", FRAMES)
def test_an_event_has_the_keys_and_types_of_the_recorded_one(happened: Happened, frame: dict[str, Any]):
    recorded, event = json.loads(frame["body_raw"]), happened.event_like(frame)
    # The recorded user had several resources, some of them listed twice.
    recorded = {key: value[:1] if isinstance(value, list) else value for key, value in recorded.items()}
    assert not list(body_differences(recorded, event.body))
    assert all(IDENTIFIER.fullmatch(value) for key, value in event.body.items() if key.endswith("_uuid"))


@pytest.mark.parametrize("frame", FRAMES)
def test_an_event_has_the_headers_of_the_recorded_one(happened: Happened, frame: dict[str, Any]):
    recorded, event = frame["headers"], happened.event_like(frame)
    assert recorded.keys() <= event.headers.keys()
    assert {name: event.headers[name] for name in SAME_HEADERS} == {name: recorded[name] for name in SAME_HEADERS}
    queue = happened.channels[frame["via"]].queue
    assert event.headers["destination"] == f"/queue/{queue}"
    assert event.headers["subscription"] == queue
    assert len(event.headers["x-message-id"]) == len(recorded["x-message-id"])


def test_every_transition_of_an_order_arrives_once_and_in_order(happened: Happened):
    for name in ("unified", "legacy-order"):
        happened.event(name, {"order_uuid": happened.order, "order_state": "done"})
        arrived = [event for event in happened.channels[name].capture.events if event.is_about(happened.order)]
        states = [event.body["order_state"] for event in arrived if "order_state" in event.body]
        assert states == ["pending-consumer", "pending-provider", "executing", "done"]


@pytest.mark.parametrize(
    "telling",
    [
        {"object_type": "order", "order_state": "done"},
        {"object_type": "offering_user", "action": "username_set"},
        {"object_type": "user_role", "granted": False},
        {"object_type": "resource", "paused": True},
    ],
    ids=lambda telling: telling["object_type"],
)
def test_an_event_has_the_keys_that_upstream_names(happened: Happened, telling: dict[str, Any]):
    shape = SHAPES[telling["object_type"]]
    event = happened.event("unified", telling)
    assert {*shape["body"], *shape.get("unified_extra", ())} <= event.body.keys()


def test_what_the_control_api_tells_is_what_arrived(recorded_world: RecordedWorld, happened: Happened):
    happened.event("unified", {"object_type": "resource", "paused": True})
    channel = happened.channels["unified"]
    published = recorded_world.instance.control.events()
    assert len([event for event in published if channel.queue in event["queues"]]) == len(channel.capture.events)
    assert channel.lost(published) == []
