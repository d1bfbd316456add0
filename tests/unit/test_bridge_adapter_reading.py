"""Which records are events of their topic, and what is said of those that are none."""

import json
from typing import Any
from uuid import uuid4

import pytest
from adapter_support import envelope_of
from aiokafka.structs import ConsumerRecord
from testyard.lab.bridge.adapter.reading import MOST_PROBLEMS, NotAnEventError, Reader
from testyard.lab.bridge.envelope import SigningKey
from testyard.lab.bridge.events import StepCompleted
from testyard.lab.bridge.topics import Route

KEY = SigningKey("the right one")
OTHER_KEY = SigningKey("a wrong one")
STEP_TOPIC = Route.STEP_COMPLETED.topic("test")


def record_of(value: bytes | None, topic: str = STEP_TOPIC) -> ConsumerRecord:
    """A record as it comes from Kafka."""
    return ConsumerRecord(topic, 2, 41, 1_900_000_000_123, 0, b"key", value, None, 3, len(value or b""), ())


def step(**changes: Any) -> dict[str, Any]:
    """A step's envelope as JSON values; None takes a field out."""
    told = {**json.loads(envelope_of(Route.STEP_COMPLETED).to_bytes()), **changes}
    return {name: value for name, value in told.items() if value is not None}


def refusal_of(value: bytes | None, topic: str = STEP_TOPIC, key: SigningKey | None = None) -> str:
    """Why a record is no event."""
    with pytest.raises(NotAnEventError) as refused:
        Reader("test", key).read(record_of(value, topic))
    return str(refused.value)


@pytest.mark.parametrize("route", list(Route), ids=lambda it: it.name)
def test_an_event_of_a_topic_is_read(route: Route):
    sent = envelope_of(route)
    event = Reader("test").read(record_of(sent.to_bytes(), route.topic("test")))
    assert event.route is route
    assert event.happened_at == pytest.approx(sent.timestamp.timestamp(), abs=1e-6)
    columns = event.row.removesuffix(b"\n").split(b"\t")
    assert columns[0].decode() == sent.event_id.hex
    assert columns[-3:] == [b"2", b"41", sent.to_bytes().replace(b"\\", b"\\\\")]


def test_the_topics_are_those_of_all_routes():
    assert Reader("test").topics == [route.topic("test") for route in Route]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "The record has no value."),
        (b"", "the value: Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b"stamped", "the value: Invalid JSON: expected value at line 1 column 1"),
        (b"\xff\xfe", "the value: Invalid JSON: expected value at line 1 column 1"),
        (b"[]", "the value: Input should be an object"),
        (b"null", "the value: Input should be an object"),
    ],
    ids=["null", "empty", "text", "bytes", "list", "JSON null"],
)
def test_what_is_no_envelope_is_refused(value: bytes | None, reason: str):
    assert refusal_of(value) == reason


@pytest.mark.parametrize(
    "name", ["event_id", "timestamp", "event_type", "source_service", "environment", "payload"]
)
def test_what_makes_an_envelope_is_never_invented(name: str):
    assert refusal_of(json.dumps(step(**{name: None})).encode()) == f"{name}: Field required"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_id": "7"}, "event_id: Input should be a valid UUID"),
        ({"timestamp": "2030-01-15T12:00:00"}, "timestamp: Input should have timezone info"),
        ({"correlation_id": 7}, "correlation_id: UUID input should be a string, bytes or UUID object"),
        ({"payload": None}, "payload: Field required"),
        ({"payload": []}, "payload: Input should be an object"),
        ({"metadata": 1}, "metadata: Input should be an object"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else "",
)
def test_a_field_that_is_not_right_is_named(changes: dict[str, Any], reason: str):
    assert refusal_of(json.dumps(step(**changes)).encode()).startswith(reason)


def test_the_payload_must_be_the_one_of_its_topic():
    transition = envelope_of(Route.STATE_TRANSITION).to_bytes()
    assert refusal_of(transition).startswith(
        "payload.workflow_id: Field required; payload.step_name: Field required"
    )


def test_a_message_has_an_end_and_no_values():
    secret = "5ecre7"
    payload = {name: [secret] for name in StepCompleted.model_fields}
    message = refusal_of(json.dumps(step(payload=payload, environment=[secret])).encode())
    assert message.count(";") == MOST_PROBLEMS
    assert message.endswith("; and 3 more")
    assert secret not in message


def test_a_topic_that_nobody_publishes_to_is_refused():
    value = envelope_of(Route.STEP_COMPLETED).to_bytes()
    assert refusal_of(value, "test.omninode-bridge.orchestrator.paused.v1") == (
        "No service publishes to the topic test.omninode-bridge.orchestrator.paused.v1."
    )
    assert "dev.omninode-bridge" in refusal_of(value, Route.STEP_COMPLETED.topic("dev"))


def test_an_unsigned_event_is_read_when_there_is_no_key():
    assert Reader("test").read(record_of(envelope_of(Route.STEP_COMPLETED).to_bytes()))


def test_an_event_with_the_right_signature_is_read():
    signed = envelope_of(Route.STEP_COMPLETED, step_data={"name": "ünï", "share": 0.1}).signed(KEY)
    assert Reader("test", KEY).read(record_of(signed.to_bytes()))


def test_an_event_must_be_signed_when_there_is_a_key():
    unsigned = envelope_of(Route.STEP_COMPLETED)
    assert refusal_of(unsigned.to_bytes(), key=KEY) == f"The event {unsigned.event_id} is not signed."
    without_context = envelope_of(Route.STEP_COMPLETED, envelope={"security_context": None})
    assert refusal_of(without_context.to_bytes(), key=KEY).endswith("is not signed.")


def test_a_signature_must_fit():
    event = envelope_of(Route.STEP_COMPLETED)
    says = f"The signature of the event {event.event_id} does not fit its payload."
    assert refusal_of(event.signed(OTHER_KEY).to_bytes(), key=KEY) == says
    changed = event.signed(KEY).to_bytes().replace(b'"completed"', b'"failed"')
    assert refusal_of(changed, key=KEY) == says


def test_ids_are_stored_in_one_form():
    number = uuid4()
    event = Reader("test").read(record_of(json.dumps(step(event_id=number.urn)).encode()))
    assert event.row.startswith(number.hex.encode())
