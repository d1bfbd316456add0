"""The ledger's classes: a clean history gives none, and each defect exactly its own."""

from collections import defaultdict
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import (
    DEFECTS,
    TABLE,
    Defect,
    History,
    double,
    found,
    happened,
    ledger_of,
    lose,
    moment,
    refuse,
    refuse_and_store,
    swap,
    time_out,
    time_out_and_lose,
)
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Happening, Kind
from testyard.ledger.deliveries import deliveries
from testyard.ledger.findings import EventClass
from testyard.ledger.judging import exactly_once, few_duplicated, nobody_late, nothing_lost, order_kept
from testyard.ledger.ledger import Ledger
from testyard.ledger.ordering import ordering
from testyard.ledger.shares import Share

keys = st.lists(st.integers(0, 4), min_size=1, max_size=40)
defects = st.sampled_from(list(DEFECTS))
NONE = Share.parse("0%")


@settings(deadline=None, derandomize=True)
@given(keys, st.randoms(use_true_random=False))
def test_a_clean_history_gives_nothing_in_any_order_of_telling(of_keys: list[int], random: Random):
    history = History(of_keys)
    random.shuffle(history.happenings)
    ledger = ledger_of(*history.happenings)
    assert found(ledger) == {}
    assert exactly_once(ledger, Kind.STORED).arrived == len(of_keys)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(keys, st.data())
def test_exactly_the_defects_that_were_injected_are_found(of_keys: list[int], data: st.DataObject):
    history = History(of_keys)
    expected: defaultdict[EventClass, set[str]] = defaultdict(set)
    broken: set[int] = set()
    for number in data.draw(st.sets(st.sampled_from(range(len(of_keys)))), "broken"):
        defect = data.draw(defects, "defect")
        defect(history, number)
        broken.add(number)
        for event_class in DEFECTS[defect]:
            expected[event_class].add(f"event-{number}")
    for first, second in neighbours(of_keys):
        if not broken & {first, second} and data.draw(st.booleans(), "swapped"):
            swap(history, first, second)
            broken |= {first, second}
            expected[EventClass.REORDERED].add(f"event-{first}")
    for number in range(data.draw(st.integers(0, 3), "strangers")):
        history.happenings.append(happened(Kind.STORED, f"stranger-{number}", 1, place=TABLE, position=-number))
        expected[EventClass.UNEXPECTED].add(f"stranger-{number}")
    data.draw(st.randoms(use_true_random=False), "order").shuffle(history.happenings)
    assert found(ledger_of(*history.happenings)) == expected


def neighbours(of_keys: list[int]) -> list[tuple[int, int]]:
    """Events with one key that follow each other."""
    last: dict[int, int] = {}
    pairs = []
    for number, key in enumerate(of_keys):
        if key in last:
            pairs.append((last[key], number))
        last[key] = number
    return pairs


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_each_defect_is_found_alone(defect: Defect):
    history = History([0, 1, 0])
    defect(history, 1)
    assert found(ledger_of(*history.happenings)) == {kind: {"event-1"} for kind in DEFECTS[defect]}


def broken(*defects: Defect, drained: bool = True) -> Ledger:
    """A history with a defect in each of its first events."""
    history = History([0] * (len(defects) + 2))
    for number, defect in enumerate(defects):
        defect(history, number)
    return ledger_of(*history.happenings, drained=drained)


def test_the_message_names_every_event_and_where_it_was_last_seen():
    with pytest.raises(NotMetError) as failure:
        exactly_once(broken(lose, double, refuse_and_store), Kind.STORED)
    assert (
        str(failure.value)
        == """\
Not every one of 5 attempted events was stored exactly once: 1 lost, 1 duplicated, 1 unexpected.
- lost: event-0 (key key-0), first attempted at 08:00:00.000000, last seen: acknowledged at 08:00:00.002000
- duplicated: event-1 (key key-0), first attempted at 08:00:00.010000, last seen: stored on event_logs, \
position 1000001, at 08:00:00.015000
- unexpected: event-2 (key key-0), first attempted at 08:00:00.020000, last seen: stored on event_logs, \
position 2, at 08:00:00.025000"""
    )


def test_the_message_names_five_events_and_counts_the_others():
    with pytest.raises(NotMetError) as failure:
        nothing_lost(broken(*[lose] * 7), Kind.STORED)
    lines = str(failure.value).splitlines()
    assert lines[0] == "Not every one of 9 acknowledged events was stored: 7 lost."
    assert [line.split()[2] for line in lines[1:6]] == [f"event-{number}" for number in range(5)]
    assert lines[6:] == ["- lost: and 2 more"]


def test_what_is_lost_after_it_was_received_was_last_seen_there():
    sent = [happened(kind, "e", at) for at, kind in enumerate((Kind.ATTEMPTED, Kind.ACKNOWLEDGED))]
    received = happened(Kind.RECEIVED, "e", 2, place="orders/2", position=17)
    ledger = ledger_of(*sent, received)
    assert exactly_once(ledger, Kind.RECEIVED).arrived == 1
    with pytest.raises(NotMetError, match=r"last seen: received on orders/2, position 17, at 08:00:00.002000"):
        exactly_once(ledger, Kind.STORED)


def test_an_unanswered_event_may_be_there_once_or_not_at_all_but_not_twice():
    ledger = broken(time_out, time_out_and_lose, refuse)
    assert exactly_once(ledger, Kind.STORED).refused == 1
    history = History([0])
    time_out(history, 0)
    double(history, 0)
    with pytest.raises(NotMetError, match="none could be lost"):
        exactly_once(ledger_of(*history.happenings), Kind.STORED)
    history.happenings += [happened(kind, "other", 1) for kind in (Kind.ACKNOWLEDGED, Kind.STORED)]
    with pytest.raises(NotMetError, match="1 duplicated"):
        exactly_once(ledger_of(*history.happenings), Kind.STORED)


def test_doubles_are_no_loss_and_unexpected_events_neither():
    assert nothing_lost(broken(double, refuse_and_store), Kind.STORED).acknowledged == 3


@pytest.mark.parametrize("judge", [exactly_once, nothing_lost])
def test_nothing_is_judged_before_a_drain(judge):
    ledger = broken(lose, drained=False)
    with pytest.raises(UserError, match="has not been drained"):
        judge(ledger, Kind.STORED)
    ledger.drained(moment(25) - 1)
    with pytest.raises(UserError, match=r"drained at 08:00:00.024999, but event-2 was stored on event_logs"):
        judge(ledger, Kind.STORED)
    ledger.drained(moment(25))
    with pytest.raises(NotMetError, match="1 lost"):
        judge(ledger, Kind.STORED)
    ledger.add([happened(Kind.STORED, "event-0", 25)])
    assert judge(ledger, Kind.STORED).missing == deliveries(ledger, Kind.STORED).missing
    ledger.add([happened(Kind.ATTEMPTED, "event-0", 26)])
    assert not ledger.is_drained


def test_a_ledger_is_drained_now_unless_it_is_said_when():
    ledger = Ledger()
    ledger.add([Happening(Kind.ATTEMPTED, "e", 1)])
    assert not ledger.is_drained
    ledger.drained()
    assert ledger.is_drained


def test_without_an_acknowledgement_nothing_can_be_lost():
    ledger = ledger_of(happened(Kind.ATTEMPTED, "e", 1))
    for judge in (exactly_once, nothing_lost):
        with pytest.raises(NotMetError, match="none could be lost"):
            judge(ledger, Kind.STORED)


def test_duplicates_are_a_share_of_what_is_there():
    ledger = broken(double, lose, lose)
    assert str(deliveries(ledger, Kind.STORED).share_duplicated) == "33.33%"
    assert few_duplicated(ledger, Share.parse("33.4%"), Kind.STORED).arrived == 3
    with pytest.raises(
        NotMetError, match=r"33.33% of 3 events were stored more than once, expected at most 33.3%"
    ):
        few_duplicated(ledger, Share.parse("33.3%"), Kind.STORED)
    with pytest.raises(NotMetError, match="No event was received"):
        few_duplicated(ledger, NONE, Kind.RECEIVED)
    with pytest.raises(UserError, match="has not been drained"):
        few_duplicated(broken(drained=False), NONE, Kind.STORED)


def test_a_share_that_is_just_reached_is_fine():
    history = History([0] * 1000)
    double(history, 7)
    assert few_duplicated(ledger_of(*history.happenings), Share.parse("0.1%"), Kind.STORED).arrived == 1000


@pytest.mark.parametrize("text", ["0.1", "5", "-1%", "101%", "x%", "1/0%", "1%%", ""])
def test_what_is_no_percentage_is_no_share(text: str):
    with pytest.raises(ValueError, match=r"such as 0.1%"):
        Share.parse(text)


def test_what_is_late_or_lost_is_not_in_time():
    with pytest.raises(NotMetError, match=r"stored within 4 ms after its first attempt: 2 late, 1 lost"):
        nobody_late(broken(lose), timedelta(milliseconds=4), Kind.STORED)
    assert nobody_late(broken(), timedelta(milliseconds=5), Kind.STORED).arrived == 2
    answered = ledger_of(happened(Kind.ACKNOWLEDGED, "e", 1), happened(Kind.STORED, "e", 2))
    with pytest.raises(UserError, match="does not know when any was attempted"):
        nobody_late(answered, timedelta(milliseconds=5), Kind.STORED)


# ---- order


def test_the_message_names_what_was_overtaken_and_by_what():
    history = History([0, 1, 0, 0])
    swap(history, 0, 2)
    with pytest.raises(NotMetError) as failure:
        order_kept(ledger_of(*history.happenings), Kind.STORED)
    head, first, second = str(failure.value).splitlines()
    assert head == "Not every event was stored before those with its key that were attempted later: 1 reordered."
    assert first.startswith("- reordered: event-0 (key key-0), first attempted")
    assert second.startswith("  overtaken by event-2 (key key-0), first attempted")


def test_many_reordered_events_are_counted():
    history = History([0] * 8)
    for number in range(7):
        swap(history, number, number + 1)
    with pytest.raises(NotMetError, match="7 reordered") as failure:
        order_kept(ledger_of(*history.happenings), Kind.STORED)
    assert str(failure.value).endswith("- reordered: and 2 more")


def stored(event: str, at: float, **values: object) -> list[Happening]:
    """An event that was attempted at the start of its name's number, and stored."""
    return [
        happened(Kind.ATTEMPTED, event, int(event[1:]), key="k"),
        happened(Kind.STORED, event, at, **{"key": "k", "place": TABLE, **values}),
    ]


def overtaken(*happenings: list[Happening]) -> dict[str, str]:
    ledger = ledger_of(*(it for some in happenings for it in some))
    pairs = ordering(ledger, Kind.STORED).overtaken
    return {ledger.traces([slow])[0].event: ledger.traces([fast])[0].event for slow, fast in pairs.items()}


def test_without_positions_moments_tell_the_order():
    assert overtaken(stored("e1", 11), stored("e2", 10)) == {"e1": "e2"}
    assert overtaken(stored("e1", 10), stored("e2", 11)) == {}


def test_what_is_stored_in_one_moment_has_no_order():
    assert overtaken(stored("e3", 10), stored("e2", 10), stored("e1", 10)) == {}
    assert overtaken(stored("e2", 10), stored("e3", 10), stored("e1", 11)) == {"e1": "e3"}
    assert overtaken(stored("e4", 9), stored("e2", 10), stored("e3", 10)) == {"e2": "e4", "e3": "e4"}


def test_where_one_position_is_missing_moments_tell_the_order_of_that_place_only():
    without = [*stored("e1", 11), *stored("e2", 10, position=1)]
    other = [*stored("e3", 11, place="p", position=1), *stored("e4", 10, place="p", position=2)]
    assert overtaken(without, other) == {"e1": "e2"}


def test_only_events_with_one_key_in_one_place_have_an_order():
    assert overtaken(stored("e1", 11, place="a"), stored("e2", 10, place="b")) == {}
    assert overtaken(stored("e1", 11), stored("e2", 10, key="other")) == {}
    no_key = [happened(Kind.ATTEMPTED, "e1", 1), happened(Kind.STORED, "e1", 11)]
    no_key += [happened(Kind.ATTEMPTED, "e2", 2), happened(Kind.STORED, "e2", 10)]
    assert overtaken(no_key) == {}
    with pytest.raises(NotMetError, match="No two attempted events with the same key"):
        order_kept(ledger_of(*no_key), Kind.STORED)


def test_the_sender_may_know_the_key_alone():
    assert overtaken(stored("e1", 11, key=None), stored("e2", 10, key=None)) == {"e1": "e2"}


ANSWERS = (Kind.ACKNOWLEDGED, Kind.REFUSED, Kind.INDETERMINATE)


@pytest.mark.parametrize("first", ANSWERS)
@pytest.mark.parametrize("second", ANSWERS)
def test_an_attempt_that_nobody_told_was_before_its_answer(first: Kind, second: Kind):
    answers = [happened(kind, f"e{number}", number, key="k") for number, kind in ((1, first), (2, second))]
    arrivals = [happened(Kind.STORED, f"e{number}", 10 - number, key="k") for number in (1, 2)]
    assert overtaken([*answers, *arrivals]) == {"e1": "e2"}


def test_a_second_arrival_is_a_duplicate_and_not_out_of_order():
    repeated = happened(Kind.STORED, "e1", 12, key="k", place=TABLE)
    assert overtaken(stored("e1", 10), stored("e2", 11), [repeated]) == {}
    elsewhere = happened(Kind.STORED, "e1", 12, key="k", place="copy")
    after = happened(Kind.STORED, "e2", 11, key="k", place="copy")
    assert overtaken(stored("e1", 10), stored("e2", 11), [elsewhere, after]) == {"e1": "e2"}


def test_attempts_of_one_moment_are_in_the_order_in_which_the_ledger_heard_of_the_events():
    def both(*order: str) -> dict[str, str]:
        sent = [happened(Kind.ATTEMPTED, event, 0, key="k") for event in order]
        arrived = [happened(Kind.STORED, event, at, key="k") for at, event in enumerate(("a", "b"), 1)]
        return overtaken([*sent, *arrived])

    assert both("a", "b") == {}
    assert both("b", "a") == {"b": "a"}


# ---- places, kinds and what is told


def test_only_the_places_that_match_count():
    sent = [happened(kind, "e", at, key="k") for at, kind in enumerate((Kind.ATTEMPTED, Kind.ACKNOWLEDGED))]
    ledger = ledger_of(
        *sent,
        happened(Kind.STORED, "e", 2, place="orders"),
        happened(Kind.STORED, "e", 3, place="orders_copy"),
        happened(Kind.STORED, "e", 4, place="audit"),
    )
    assert exactly_once(ledger, Kind.STORED, "orders").arrived == 1
    assert found(ledger, place="orders*") == {EventClass.DUPLICATED: {"e"}}
    ledger.add(
        happened(kind, "only there", 5, key="k", place="audit") for kind in (Kind.ACKNOWLEDGED, Kind.STORED)
    )
    assert nothing_lost(ledger, Kind.STORED).arrived == 2
    assert found(ledger, place="orders") == {EventClass.LOST: {"only there"}}
    with pytest.raises(UserError, match=r"on 'nowhere'; places: '', 'orders', 'orders_copy', 'audit'\."):
        exactly_once(ledger, Kind.STORED, "nowhere")


@pytest.mark.parametrize("judge", [exactly_once, nothing_lost, order_kept])
def test_only_received_and_stored_are_arrivals(judge):
    with pytest.raises(UserError, match="not when it is attempted"):
        judge(broken(), Kind.ATTEMPTED)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("text", "number 2 of these is 'text'"),
        (Happening("stored", "e", 1), "The kind of a happening cannot be 'stored'"),
        (Happening(Kind.STORED, 7, 1), "The event of a happening cannot be 7"),
        (Happening(Kind.STORED, "e", 1.5), "The at_ns of a happening cannot be 1.5"),
        (Happening(Kind.STORED, "e", 2**70), "The at_ns of a happening cannot be 1180591620717411303424"),
        (Happening(Kind.STORED, "e", 1, key=7), "The key of a happening cannot be 7"),
        (Happening(Kind.STORED, "e", 1, place=None), "The place of a happening cannot be None"),
        (Happening(Kind.STORED, "e", 1, position="7"), "The position of a happening cannot be '7'"),
    ],
)
def test_what_is_no_happening_is_refused_and_nothing_is_kept(wrong: object, said: str):
    ledger = Ledger()
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        ledger.add([Happening(Kind.STORED, "e", 1), wrong])
    assert (ledger.events, ledger.count(Kind.STORED)) == (0, 0)


def test_what_happened_to_an_event_is_told_in_the_order_of_its_moments():
    told = [happened(kind, "e", 10 - at) for at, kind in enumerate(Kind)]
    (trace,) = ledger_of(*told).traces([0])
    assert trace.happenings == tuple(reversed(told))


def test_what_is_added_is_counted_and_found_again():
    ledger = Ledger()
    told = [Happening(Kind.STORED, f"e{number}", number, "k", "t", number) for number in range(10_000)]
    assert ledger.add(iter(told)) == 10_000
    assert ledger.events == ledger.count(Kind.STORED) == 10_000
    (trace,) = ledger.traces([9_999])
    assert trace.happenings == (told[-1],)
    assert (trace.event, trace.key) == ("e9999", "k")
