"""What a ledger measures: delays in phases, recovery in its parts, throughput; and how it is drawn."""

import re
from collections.abc import Sequence
from datetime import timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import BOUND, History, happened, ledger_of, lose, moment
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Happening, Kind
from testyard.core.percentiles import LONGEST, MEDIAN, P95
from testyard.core.redact import secrets_in_use
from testyard.ledger.delays import delays
from testyard.ledger.drawing import delay_chart
from testyard.ledger.faults import Fault, Phase, Phases
from testyard.ledger.ledger import Ledger
from testyard.ledger.rates import throughput
from testyard.ledger.recovery import Recovery, recoveries
from testyard.ledger.summary import counts, summary

ATTEMPTED, ACKNOWLEDGED, REFUSED, INDETERMINATE, RECEIVED, STORED = Kind


def ms(milliseconds: float) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def taking(*durations: float, every: float = 1000) -> Ledger:
    """Events that are attempted one after the other and stored so many milliseconds later."""
    happenings = []
    for number, duration in enumerate(durations):
        event, start = f"e{number}", every * number
        happenings += [happened(ATTEMPTED, event, start), happened(ACKNOWLEDGED, event, start)]
        happenings.append(happened(STORED, event, start + duration))
    return ledger_of(*happenings)


def break_between(ledger: Ledger, begins: float, ends: float | None, name: str = "fault") -> None:
    ledger.faults.begin(name, moment(begins))
    if ends is not None:
        ledger.faults.end(name, moment(ends))


# ---- delays


def test_a_percentile_of_the_delay_is_one_of_the_delays():
    ledger = taking(*range(200, 0, -1))
    assert delays(ledger).at(P95) == ms(190)
    assert delays(ledger).at(MEDIAN) == ms(100)
    assert delays(ledger).at(LONGEST) == ms(200)
    assert delays(ledger, ACKNOWLEDGED).samples == 200


def test_a_percentile_of_too_few_samples_is_refused():
    with pytest.raises(UserError, match="p95 of the delay from attempted to stored needs at least 200 samples"):
        delays(taking(*range(199))).at(P95)
    with pytest.raises(UserError, match="there are 19"):
        delays(taking(*range(19))).at(MEDIAN)


def test_an_event_is_measured_from_its_first_start_to_its_first_end():
    ledger = taking(5)
    ledger.add([happened(ATTEMPTED, "e0", 3), happened(STORED, "e0", 9, place="copy")])
    assert delays(ledger).at(LONGEST) == ms(5)
    assert delays(ledger, place="copy").at(LONGEST) == ms(9)


def test_an_acknowledged_event_that_is_missing_is_longer_than_all_others():
    history = History([0] * 200)
    for number in range(10):
        lose(history, number)
    measured = delays(ledger_of(*history.happenings))
    assert (measured.samples, measured.missing, measured.at(P95)) == (200, 10, ms(5))
    lose(history, 10)
    with pytest.raises(NotMetError, match=r"p95 of the delay .* has no end: 11 of 200 acknowledged events"):
        delays(ledger_of(*history.happenings)).at(P95)


def test_what_was_not_acknowledged_and_did_not_arrive_does_not_count():
    ledger = taking(5)
    ledger.add([happened(ATTEMPTED, "unknown", 1), happened(ATTEMPTED, "refused", 1)])
    ledger.add([happened(REFUSED, "refused", 2)])
    measured = delays(ledger)
    assert (measured.samples, measured.missing, measured.unknown) == (1, 0, 2)


def test_what_was_stored_before_it_was_acknowledged_has_a_negative_delay():
    happenings = [happened(STORED, "e", 3), happened(ATTEMPTED, "e", 1), happened(ACKNOWLEDGED, "e", 5)]
    assert delays(ledger_of(*happenings), ACKNOWLEDGED).at(LONGEST) == ms(-2)


def test_moments_of_different_clocks_are_refused():
    assert delays(taking(-1)).at(LONGEST) == ms(-1)
    with pytest.raises(UserError, match=r"2 events were stored before they were attempted, one 3 ms before"):
        delays(taking(-1, -2, -3))


def test_a_delay_has_two_ends_that_happened():
    with pytest.raises(UserError, match="both are stored"):
        delays(taking(1), STORED, STORED)
    with pytest.raises(UserError, match="the ledger holds nothing that was received"):
        delays(taking(1), end=RECEIVED)


@pytest.mark.parametrize(
    ("during", "longest", "samples"),
    [(Phase.BEFORE, 1, 2), (Phase.FAULT, 9, 2), (Phase.AFTER, 4, 2), (Phase.ALL, 9, 6)],
)
def test_an_event_belongs_to_the_phase_in_which_it_started(during: Phase, longest: int, samples: int):
    ledger = taking(1, 1, 9, 9, 4, 4)
    break_between(ledger, 2000, 4000)
    measured = delays(ledger, during=during)
    assert (measured.at(LONGEST), measured.samples) == (ms(longest), samples)


def test_one_of_several_faults_can_be_meant():
    ledger = taking(1, 2, 3, 4, 5)
    break_between(ledger, 1000, 2000, "first")
    break_between(ledger, 3000, 4000, "second")
    both = delays(ledger, during=Phase.FAULT)
    assert list(both.ordered_ns) == [2_000_000, 4_000_000]
    assert both.what == "from attempted to stored (begun during the fault)"
    assert delays(ledger, during=Phase.FAULT, fault="second").at(LONGEST) == ms(4)
    assert delays(ledger, during=Phase.BEFORE, fault="second").samples == 3
    assert delays(ledger, during=Phase.AFTER).samples == 2
    with pytest.raises(UserError, match=r"no fault called 'third'; faults: first, second\."):
        delays(ledger, during=Phase.FAULT, fault="third")


def test_without_a_fault_there_are_no_phases():
    with pytest.raises(UserError, match=r"The ledger knows no fault; faults: none\."):
        delays(taking(1), during=Phase.FAULT)


def sorted_by_beginning(spans: list[tuple[int, int | None]]) -> list[tuple[int, int | None]]:
    return sorted(spans, key=lambda span: span[0])


spans = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5) | st.none()), min_size=1, max_size=5)


@settings(deadline=None, derandomize=True)
@given(spans.map(sorted_by_beginning))
def test_phases_are_what_the_faults_make_of_the_moments(these: Sequence[tuple[int, int | None]]):
    faults = [Fault("f", begins, None if length is None else begins + length) for begins, length in these]
    expected = []
    for at in range(-1, 31):
        lasts = any(it.begins_ns <= at and (it.ends_ns is None or at < it.ends_ns) for it in faults)
        expected.append(Phase.FAULT if lasts else Phase.BEFORE if at < faults[0].begins_ns else Phase.AFTER)
    assert list(Phases(faults).of(range(-1, 31))) == expected


def test_a_fault_begins_before_it_ends_and_not_twice():
    faults = Ledger().faults
    with pytest.raises(UserError, match=r"'x' cannot end, as it does not last; faults that last: none\."):
        faults.end("x", moment(1))
    faults.begin("x", moment(5))
    with pytest.raises(UserError, match=r"'x' lasts since 08:00:00\.005000 and cannot begin again"):
        faults.begin("x", moment(6))
    with pytest.raises(UserError, match=r"began at 08:00:00\.005000 and cannot end before, at 08:00:00\.004000"):
        faults.end("x", moment(4))
    faults.end("x", moment(7))
    faults.begin("x", moment(8))
    assert [it.ends_ns for it in faults.called("x")] == [moment(7), None]


# ---- recovery


def recovered(*happenings: Happening, begins: float = 100, ends: float = 200) -> Recovery:
    ledger = ledger_of(*happenings)
    break_between(ledger, begins, ends, "broker")
    (recovery,) = recoveries(ledger)
    return recovery


BACKLOG = [
    happened(ATTEMPTED, "before", 90),
    happened(ACKNOWLEDGED, "before", 91),
    happened(ATTEMPTED, "during", 150),
    happened(ACKNOWLEDGED, "during", 215),
    happened(STORED, "during", 220),
    happened(STORED, "before", 260),
]
AFTER = [happened(ATTEMPTED, "after", 210), happened(ACKNOWLEDGED, "after", 230), happened(STORED, "after", 300)]


def test_recovery_is_split_into_detect_reconnect_and_drain():
    recovery = recovered(*BACKLOG, *AFTER)
    parts = (recovery.detect, recovery.reconnect, recovery.drain, recovery.total, recovery.backlog)
    assert parts == (ms(10), ms(5), ms(45), ms(60), 2)
    assert str(recovery) == (
        "0.06 s after broker ended at 08:00:00.200000: detect 0.01 s, reconnect 0.005 s, drain 0.045 s "
        "(backlog: 2 events)"
    )


def test_an_arrival_may_be_the_first_sign():
    recovery = recovered(*BACKLOG[:3], *BACKLOG[4:])
    assert (recovery.detect, recovery.reconnect, recovery.drain) == (ms(20), ms(0), ms(40))


def test_a_second_attempt_is_a_sign_too():
    again = happened(ATTEMPTED, "during", 204)
    assert recovered(*BACKLOG, again).detect == ms(4)


def test_without_a_backlog_nothing_is_drained():
    there = [happened(ATTEMPTED, "early", 1), happened(STORED, "early", 2)]
    recovery = recovered(*there, *AFTER)
    assert (recovery.drain, recovery.backlog, recovery.total) == (ms(0), 0, ms(30))


def test_an_unanswered_event_that_never_came_is_no_backlog():
    recovery = recovered(*BACKLOG, happened(ATTEMPTED, "unknown", 150), happened(INDETERMINATE, "unknown", 160))
    assert recovery.backlog == 2


def test_a_lost_event_of_the_backlog_is_no_recovery():
    lost = [happened(ATTEMPTED, "lost", 150), happened(ACKNOWLEDGED, "lost", 151)]
    with pytest.raises(
        NotMetError, match=r"The backlog of broker \(3 events\) was never all stored: 1 lost\.\n- lost: lost, "
    ):
        recovered(*BACKLOG, *lost)


def test_when_nothing_happens_any_more_nothing_has_recovered():
    with pytest.raises(NotMetError, match=r"after it ended at .* no event was acknowledged or stored"):
        recovered(happened(ATTEMPTED, "e", 300))


def test_recovery_needs_a_fault_that_ended_and_a_drain():
    ledger = ledger_of(*BACKLOG)
    with pytest.raises(UserError, match="The ledger knows no fault"):
        recoveries(ledger)
    ledger.faults.begin("broker", moment(100))
    with pytest.raises(UserError, match=r"'broker' lasts since 08:00:00\.100000: nothing has recovered"):
        recoveries(ledger)
    ledger.faults.end("broker", moment(200))
    assert len(recoveries(ledger)) == 1
    with pytest.raises(UserError, match="not when it is attempted"):
        recoveries(ledger, ATTEMPTED)
    ledger.drained(moment(250))
    with pytest.raises(UserError, match="before was stored"):
        recoveries(ledger)


# ---- throughput


def test_throughput_counts_what_arrived_after_the_first_moment():
    assert throughput(taking(*[0] * 5, every=100)) == pytest.approx(10)
    batches = [happened(STORED, f"e{number}", 1000 * (number // 500)) for number in range(1000)]
    assert throughput(ledger_of(*batches)) == pytest.approx(500)
    twice = [happened(STORED, f"e{number // 2}", 100 * number) for number in range(10)]
    assert throughput(ledger_of(*twice)) == pytest.approx(5)


def test_throughput_needs_two_moments():
    with pytest.raises(UserError, match="of 1 events stored in one moment"):
        throughput(taking(1))
    with pytest.raises(UserError, match="of 0 events received in no time"):
        throughput(taking(1), RECEIVED)


# ---- what is shown


def test_counts_name_every_class_and_call_nothing_lost_before_a_drain():
    history = History([0] * 4)
    lose(history, 1)
    ledger = ledger_of(*history.happenings, drained=False)
    expected = {
        "attempted": 4,
        "acknowledged": 4,
        "refused": 0,
        "stored": 3,
        "missing": 1,
        "duplicated": 0,
        "unexpected": 0,
        "recovered": 0,
        "indeterminate": 0,
        "reordered": 0,
    }
    assert counts(ledger) == expected
    ledger.drained(moment(10**6))
    assert counts(ledger, within=BOUND) == {**expected, "late": 0, "lost": 1}
    assert counts(ledger, within=ms(4))["late"] == 3
    assert counts(ledger, RECEIVED)["received"] == 0


def test_the_summary_tells_samples_and_refuses_too_few():
    ledger = taking(*range(1, 31))
    break_between(ledger, 10_000, 20_000, "<broker>")
    break_between(ledger, 25_000, None, "disk")
    shown = re.sub(r"<[^>]*>", " ", summary(ledger))
    assert "from attempted to stored (begun during the fault)  15  0  needs 20 samples  needs 200" in shown
    assert "from attempted to stored  30  0  15 ms  needs 200 samples" in shown
    assert "&lt;broker&gt;  08:00:10.000000  08:00:20.000000" in shown
    assert "disk  08:00:25.000000  lasts" in shown
    assert "Faults" not in summary(taking(1))


def test_the_summary_of_a_history_with_missing_kinds_says_so():
    ledger = ledger_of(happened(ATTEMPTED, "e", 1), happened(ACKNOWLEDGED, "e", 1), drained=False)
    shown = summary(ledger)
    assert "the ledger holds nothing that was stored" in shown
    assert "not drained: nothing is called lost yet" in shown
    assert "<svg" not in shown


def svg(ledger: Ledger) -> ElementTree.Element:
    return ElementTree.fromstring(delay_chart(ledger, ATTEMPTED, STORED))


def test_the_drawing_has_a_line_for_each_percentile_a_band_for_each_fault_and_a_cross_for_what_is_missing():
    history = History([0] * 300)
    lose(history, 150)
    ledger = ledger_of(*history.happenings)
    break_between(ledger, 1000, 2000, "broker <-9>")
    break_between(ledger, 2500, None, "token-123456789")
    secrets_in_use.add("token-123456789")
    drawing = svg(ledger)
    space = "{http://www.w3.org/2000/svg}"
    words = [it.text for it in drawing.iter(f"{space}text")]
    assert len(list(drawing.iter(f"{space}polyline"))) == 3
    assert {"broker <-9>", "***", "p50", "p95", "max", "10 ms", "08:00:00.000000 UTC"} <= set(words)
    assert words.count("✕") == 1
    bands = [it for it in drawing.iter(f"{space}rect") if it.get("fill") == "#fed7d7"]
    width = 768 * 1000 / 2990
    assert float(bands[0].get("width")) == pytest.approx(width, abs=0.1)
    places = [float(it) for it in re.findall(r'[xy]\d?="([-\d.]+)"', delay_chart(ledger, ATTEMPTED, STORED))]
    assert min(places) >= 0
    assert max(places) <= 870


@pytest.mark.parametrize("durations", [[0], [0.0001], [10], [-1], [1e6, 0.001]])
def test_any_delay_can_be_drawn(durations: list[float]):
    assert svg(taking(*durations)) is not None


def test_nothing_is_drawn_of_nothing():
    assert delay_chart(Ledger(), ATTEMPTED, STORED) == ""
