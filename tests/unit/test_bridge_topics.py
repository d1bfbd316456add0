"""Topics: one convention for all services, and the way back from a topic's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.topics import Route, TopicName, dead_letter_topic, parse_topic

ENVIRONMENTS = st.from_regex(r"[a-z0-9][a-z0-9_-]*", fullmatch=True)
LONGEST_TOPIC = 249

DOCUMENTED = {
    Route.WORKFLOW_STARTED: "dev.omninode-bridge.orchestrator.workflow-started.v1",
    Route.WORKFLOW_COMPLETED: "dev.omninode-bridge.orchestrator.workflow-completed.v1",
    Route.WORKFLOW_FAILED: "dev.omninode-bridge.orchestrator.workflow-failed.v1",
    Route.STEP_COMPLETED: "dev.omninode-bridge.orchestrator.step-completed.v1",
    Route.STATE_TRANSITION: "dev.omninode-bridge.orchestrator.state-transition.v1",
    Route.METADATA_STAMPED: "dev.omninode-bridge.metadata.stamped.v1",
    Route.STATE_AGGREGATION_COMPLETED: "dev.omninode-bridge.reducer.state-aggregation-completed.v1",
    Route.REDUCER_STATE_TRANSITION: "dev.omninode-bridge.reducer.state-transition.v1",
    Route.NODE_INTROSPECTION: "dev.omninode-bridge.registry.node-introspection.v1",
    Route.NODE_HEARTBEAT: "dev.omninode-bridge.registry.node-heartbeat.v1",
}


def test_every_event_has_its_documented_topic():
    assert {route: route.topic("dev") for route in Route} == DOCUMENTED


@pytest.mark.parametrize(
    ("route", "event_type"),
    [
        (Route.WORKFLOW_STARTED, "WORKFLOW_STARTED"),
        (Route.STEP_COMPLETED, "STEP_COMPLETED"),
        (Route.STATE_TRANSITION, "STATE_TRANSITION"),
        (Route.REDUCER_STATE_TRANSITION, "STATE_TRANSITION"),
        (Route.METADATA_STAMPED, "METADATA_STAMPED"),
    ],
)
def test_the_event_type_is_the_documented_one(route, event_type):
    assert route.event_type == event_type


@given(ENVIRONMENTS, st.sampled_from(Route))
def test_a_topics_name_leads_back_to_what_it_was_made_of(environment, route):
    name = parse_topic(route.topic(environment))
    assert name == TopicName(environment, route.service, route.slug)
    assert name.route is route
    assert Settings(environment=environment).environment == environment


def test_the_event_type_is_the_fourth_part_and_not_the_fifth():
    name = parse_topic("dev.omninode-bridge.orchestrator.workflow-started.v1")
    assert name is not None
    assert name.slug == "workflow-started"


def test_a_topic_of_nobody_has_no_event():
    name = parse_topic("dev.omninode-bridge.orchestrator.something-else.v1")
    assert name == TopicName("dev", "orchestrator", "something-else")
    assert name.route is None


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "test.e2e.events",
        "dev.omninode_bridge.onex.evt.workflow-started.v1",
        "dev.omninode-bridge.orchestrator.workflow-started.v2",
        "dev.omninode-bridge.orchestrator.workflow-started",
        "dev.omninode-bridge.orchestrator.workflow-started.v1.dlq",
        "dev.omninode-bridge.orchestrator.workflow-started.v1\n",
        "dev.omninodeXbridge.orchestrator.workflow-started.v1",
        ".omninode-bridge.orchestrator.workflow-started.v1",
        "a.b.omninode-bridge.orchestrator.workflow-started.v1",
    ],
)
def test_a_name_that_does_not_follow_the_convention_is_not_taken_apart(topic):
    assert parse_topic(topic) is None


@pytest.mark.parametrize("route", Route)
def test_dead_letters_have_a_topic_of_their_own(route):
    topic = dead_letter_topic(route.topic("dev"))
    assert topic == f"{route.topic('dev')}.dlq"
    assert topic not in {it.topic("dev") for it in Route}


def test_the_longest_environment_makes_a_topic_that_kafka_takes():
    longest = max(Settings.model_fields["environment"].metadata, key=lambda it: getattr(it, "max_length", 0))
    names = [dead_letter_topic(route.topic("e" * longest.max_length)) for route in Route]
    assert max(map(len, names)) <= LONGEST_TOPIC
