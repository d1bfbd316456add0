"""From PATCH to captured event: the double and testyard's capture, against bare Starlette and a bare WebSocket."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import websocket
from bare_publisher import ACCOUNT_PATH, EVENTS_PATH
from pytest_benchmark.fixture import BenchmarkFixture
from support import SOURCE_COMPONENT, active_offering
from testyard.core.journal import Journal
from testyard.lab.supervisor import Supervisor, listening_socket
from testyard.stomp.capture import Event
from testyard.stomp.channel import Channel, open_channel
from testyard.stomp.latency import Latency, measure_latency
from testyard.waldur.api import Waldur
from testyard.waldur.offering_users import create_offering_user, set_username

MOST_RATIO = 1.3
SAMPLES = 200
ROUNDS = 5
WITHIN = timedelta(seconds=10)
PUBLISHER = Path(__file__).parent / "bare_publisher.py"


@dataclass
class BareListener:
    """A WebSocket whose messages are noted as they come."""

    connection: websocket.WebSocket
    arrived: dict[str, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """Receive until the connection ends."""
        with suppress(OSError, websocket.WebSocketException):  # closed at the end, perhaps while it waits
            while message := self.connection.recv():
                now = time.monotonic_ns()
                with self.changed:
                    self.arrived[json.loads(message)["username"]] = now
                    self.changed.notify_all()

    def wait_for(self, username: str) -> int:
        """When the message about a username came."""
        with self.changed:
            assert self.changed.wait_for(lambda: username in self.arrived, WITHIN.total_seconds())
            return self.arrived[username]


@dataclass(frozen=True)
class Bare:
    """The bare publisher and its listener."""

    client: httpx.Client
    listener: BareListener

    def measure(self) -> Latency:
        """As ``measure_latency``, without any of testyard."""
        self.listener.arrived.clear()
        measured = []
        for number in range(SAMPLES):
            username = f"latency-{number}"
            started = time.monotonic_ns()
            self.client.patch(ACCOUNT_PATH, json={"username": username}).raise_for_status()
            measured.append((self.listener.wait_for(username) - started) / 1e6)
        return Latency(tuple(measured))


@dataclass(frozen=True)
class Double:
    """The double, an account there, and a channel that captures its events."""

    staff: Waldur
    account: str
    channel: Channel

    def measure(self) -> Latency:
        """What the keyword measures."""
        return measure_latency(
            lambda username: set_username(self.staff, self.account, username),
            self.channel.capture,
            self.tells,
            samples=SAMPLES,
            within=WITHIN,
        )

    def tells(self, event: Event, username: str) -> bool:
        """Whether an event is about the account and tells the username."""
        return event.is_about(self.account) and event.body.get("username") == username


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """Ends what is open."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def bare(stack: ExitStack) -> Bare:
    """The bare publisher, in a process of its own."""
    with listening_socket("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        command = [sys.executable, str(PUBLISHER), str(listener.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),))
    stack.enter_context(process)
    client = stack.enter_context(httpx.Client(base_url=f"http://{host}:{port}"))
    connection = websocket.create_connection(f"ws://{host}:{port}{EVENTS_PATH}")
    receiver = BareListener(connection)
    thread = threading.Thread(target=receiver.run, daemon=True)
    thread.start()
    stack.callback(connection.close)
    return Bare(client, receiver)


@pytest.fixture(scope="module")
def double(stack: ExitStack) -> Double:
    """A double with an account whose events are captured."""
    instance = stack.enter_context(Supervisor()).start_waldurs()[0]
    offering = stack.enter_context(active_offering(instance, SOURCE_COMPONENT))
    staff = stack.enter_context(Waldur(instance.url, instance.staff_token))
    subject = offering.provisioner.create_user("subject")
    account = create_offering_user(staff, offering.uuid, subject)
    with Waldur(instance.url, offering.manager_token) as manager:
        registration = {"offering": offering.uuid, "name": "latency"}
        identity = manager.post("marketplace-site-agent-identities", registration)
        path = f"marketplace-site-agent-identities/{identity['uuid']}/register_queue"
        queue = manager.post(path, {"object_types": ["offering_user"]})
    channel = open_channel(
        "manager",
        Journal(),
        host=instance.host,
        port=instance.port,
        path="/rmqws-stomp",
        vhost=queue["vhost"],
        login=queue["rmq_username"],
        passcode=offering.manager_token,
        queue=queue["queue_name"],
        use_tls=False,
        within=WITHIN,
    )
    stack.callback(channel.close)
    return Double(staff, account, channel)


def test_event_latency(
    benchmark: BenchmarkFixture, bare: Bare, double: Double, report: Callable[[str], None]
) -> None:
    """Rounds of both, in turn; the ratio of a round compares what ran within the same second."""
    ours: list[Latency] = []
    theirs: list[Latency] = []

    def compare() -> None:
        theirs.append(bare.measure())
        ours.append(double.measure())

    benchmark.pedantic(compare, rounds=ROUNDS, warmup_rounds=1)
    del ours[0], theirs[0]
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [one.ninety_fifth_percentile / other.ninety_fifth_percentile for one, other in pairs]
    medians = [one.median / other.median for one, other in pairs]
    benchmark.extra_info["ratios"] = ratios
    report(
        f"PATCH to captured event: p95 {statistics.median(ratios):.2f} x bare (rounds "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}), median {statistics.median(medians):.2f} x; "
        f"ours {ours[-1]}; bare {theirs[-1]}"
    )
    assert statistics.median(ratios) <= MOST_RATIO
