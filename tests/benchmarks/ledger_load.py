"""A program: a ledger of a million events is filled and checked; prints what that took, as JSON.

Every event is attempted, acknowledged and stored, but for a few that are lost, doubled, overtaken, late or
unexpected.
The events are made in small batches while no time is taken, as a suite has them only once either.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from uuid import UUID

from testyard.core.history import Happening, Kind
from testyard.core.percentiles import P99
from testyard.ledger.delays import delays
from testyard.ledger.faults import Phase
from testyard.ledger.ledger import Ledger
from testyard.ledger.rates import throughput
from testyard.ledger.summary import counts

BATCH = 1000
KEYS = 1000
PARTITIONS = 12
EVERY_NS = 100_000
START_NS = 1_800_000_000 * 10**9
SECOND_NS = 10**9
LATE = timedelta(milliseconds=100)
DEFECTS = 10
"""So many events have each defect."""
LOST, DOUBLED, OVERTAKEN, LATECOMER, STRANGER = range(5)


class Stopwatch:
    """Adds up what some parts of a program take.

    Attributes:
        clock: In seconds of the clock.
        computing: In seconds of computing.
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self.computing = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure one part."""
        clock, computing = time.perf_counter(), time.process_time()
        yield
        self.clock += time.perf_counter() - clock
        self.computing += time.process_time() - computing


def history(events: int) -> Iterator[list[Happening]]:
    """What happened, in batches."""
    random = Random(1)
    apart = events // DEFECTS
    defects = {part * apart + defect * apart // 5: defect for part in range(DEFECTS) for defect in range(5)}
    position = 0
    for first in range(0, events, BATCH):
        batch = []
        for number in range(first, first + BATCH):
            event = str(UUID(int=random.getrandbits(128), version=4))
            defect = defects.get(number)
            batch += sent(event, number) if defect != STRANGER else ()
            position += 1
            if defect != LOST:
                behind_the_next_of_its_key = KEYS + KEYS // 2 if defect == OVERTAKEN else 0
                batch.append(stored(event, number, position + behind_the_next_of_its_key, random, defect))
            if defect == DOUBLED:
                batch.append(stored(event, number, position + events, random, defect))
        yield batch


def sent(event: str, number: int) -> list[Happening]:
    """An event that was attempted and acknowledged."""
    at_ns, key = START_NS + number * EVERY_NS, f"key-{number % KEYS}"
    topic = f"orders/{number % KEYS % PARTITIONS}"
    return [
        Happening(Kind.ATTEMPTED, event, at_ns, key),
        Happening(Kind.ACKNOWLEDGED, event, at_ns + 3_000_000, key, topic, number),
    ]


def stored(event: str, number: int, position: int, random: Random, defect: int | None) -> Happening:
    """An event that is in a table after some time."""
    took_ns = random.randrange(5_000_000, 60_000_000) + (SECOND_NS if defect == LATECOMER else 0)
    at_ns = START_NS + number * EVERY_NS + took_ns
    return Happening(Kind.STORED, event, at_ns, f"key-{number % KEYS}", "event_logs", position)


def main(events: int) -> None:
    """Fill a ledger, check it, and say what that took."""
    ledger, adding, checking = Ledger(), Stopwatch(), Stopwatch()
    for batch in history(events):
        with adding.running():
            ledger.add(batch)
    end_ns = START_NS + events * EVERY_NS
    ledger.faults.begin("broker", START_NS + (end_ns - START_NS) // 4)
    ledger.faults.end("broker", START_NS + (end_ns - START_NS) // 2)
    ledger.drained(end_ns + 10 * SECOND_NS)
    with checking.running():
        numbers = counts(ledger, within=LATE)
        delay = delays(ledger).at(P99)
        in_fault = delays(ledger, during=Phase.FAULT).at(P99)
        rate = throughput(ledger)
    result = {
        "adding": adding.clock,
        "checking": checking.clock,
        "computing": adding.computing + checking.computing,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "counts": numbers,
        "delay_ms": delay / timedelta(milliseconds=1),
        "in_fault_ms": in_fault / timedelta(milliseconds=1),
        "rate": rate,
        "happenings": sum(ledger.count(kind) for kind in Kind),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]))
