"""The Waldur double answers every recorded request as the real Waldur did."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest
from waldur_comparison import Difference
from waldur_support import RecordedWorld, names_of_samples, sample

NOT_EXCHANGES: Mapping[str, str] = {
    "_agent_endpoint_coverage": "which endpoints the agent calls; see test_waldur_models",
    "_schema_delta_7.0.7_vs_api_client_8.1.2": "derived from the client's models; test_waldur_models uses those",
    "_upstream_event_shapes": "derived from upstream's source; see test_waldur_events",
    "hybrid_stomp_legacy_frames": "STOMP frames; see test_waldur_events",
    "hybrid_stomp_unified_frames": "STOMP frames; see test_waldur_events",
}


class Departure(NamedTuple):
    """What the double may answer otherwise than recorded: samples and paths as shell patterns, and why."""

    sample: str
    path: str
    reason: str


DEPARTURES = (
    Departure("order_approve_by_*", "header.Content-Type", "the next line's object is JSON"),
    Departure("order_approve_by_*", "body", "waldur-api-client 8.1.2 requires `detail` (OrderInfoResponse)"),
    Departure("order_reject_by_*", "header.Content-Type", "the next line's object is JSON"),
    Departure("order_reject_by_*", "body", "as for approvals; 7.0.7 answered nothing"),
    Departure("roles_filter_name", "header.*", "the next line's list has one page"),
    Departure("roles_filter_name", "body.*", "7.0.7 ignored `name`; agent 1.0.7 takes the first role it gets"),
    Departure("resource_get_updating_real", "body.backend_metadata.*", "written by the recorded SLURM plug-in"),
    Departure("hybrid_event_subscription_create_error", "body", "agent 1.0.7 asks for types added since"),
    Departure("absent_*", "status", "not in 7.0.7, needed by agent 1.0.7"),
    Departure("api_root", "body.*", "the double has the collections that the scenarios need"),
    Departure("hooks_web", "status", "not served: no scenario needs it"),
    Departure("ou_roles", "status", "not served: no scenario needs it"),
    Departure("slurm_*", "status", "not served: the double has no SLURM plug-in"),
)

EXCHANGES = [name for name in names_of_samples() if name not in NOT_EXCHANGES]


def _allows(departure: Departure, name: str, difference: Difference) -> bool:
    return fnmatchcase(name, departure.sample) and fnmatchcase(difference.path, departure.path)


def test_every_file_is_an_exchange_or_listed_with_the_reason():
    assert NOT_EXCHANGES.keys() <= set(names_of_samples())
    assert len(EXCHANGES) == 134
    for name in EXCHANGES:
        assert sample(name).request.path.startswith("/api/")


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_double_answers_as_recorded(recorded_world: RecordedWorld, name: str):
    assert name in recorded_world.replayed, "no chapter of waldur_story sends this request"
    unexpected = [
        difference
        for difference in recorded_world.differences(name)
        if not any(_allows(departure, name, difference) for departure in DEPARTURES)
    ]
    assert not unexpected


@pytest.mark.parametrize("departure", DEPARTURES, ids=lambda departure: f"{departure.sample}-{departure.path}")
def test_every_departure_is_still_needed_by_each_of_its_samples(recorded_world, departure):
    names = [name for name in EXCHANGES if fnmatchcase(name, departure.sample)]
    assert names
    for name in names:
        assert any(_allows(departure, name, difference) for difference in recorded_world.differences(name)), name


def test_limits_change_when_the_update_is_done_and_not_before(recorded_world: RecordedWorld):
    resource = recorded_world.answer("resource_get_updating_real")
    assert resource["limits"] == resource["order_in_progress"]["attributes"]["old_limits"] == {"cpu": 10}
    now = recorded_world.ask("GET", f"marketplace-resources/{resource['uuid']}/", "owner").answer.body
    assert now["limits"] == sample("order_update_limits_done").answer.body["limits"] == {"cpu": 77}
