"""The faults that the control API can switch on, as data, and the state of each.

A fault is asked for by name where it takes effect; nothing here knows how.
"""

from asyncio import Future
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from testyard.lab.waldur.identifiers import parse_identifier


class Fault(StrEnum):
    """Names of the faults."""

    ORDER_SET_STATE_DONE_ERROR = "order_set_state_done_error"
    SHADOW_RESOURCE = "shadow_resource"
    NO_STOMP = "no_stomp"
    SILENT_HEARTBEAT = "silent_heartbeat"
    LATENCY = "latency"
    REFUSE_CONNECTIONS = "refuse_connections"
    REVOKED_TOKEN = "revoked_token"
    DROP_EVENT = "drop_event"
    DUPLICATE_EVENT = "duplicate_event"
    REORDER_EVENTS = "reorder_events"


class FaultError(ValueError):
    """A fault or a parameter that does not exist or has an impossible value; the text is for the tester."""


def _times(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("a whole number above 0, or null for always")


def _milliseconds(value: object) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("a number of milliseconds, 0 or more")


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("a text that is not empty")


def _user(value: object) -> str:
    identifier = parse_identifier(value)
    if identifier is None:
        raise ValueError("the UUID of a user")
    return identifier


@dataclass(frozen=True, slots=True)
class _Parameter:
    read: Callable[[object], Any]
    required: bool = False


_EVENT_PARAMETERS: Mapping[str, _Parameter] = {
    "times": _Parameter(_times),
    "object_type": _Parameter(_text),
    "state": _Parameter(_text),
}

PARAMETERS: Mapping[Fault, Mapping[str, _Parameter]] = {
    Fault.ORDER_SET_STATE_DONE_ERROR: {"times": _Parameter(_times)},
    Fault.SHADOW_RESOURCE: {},
    Fault.NO_STOMP: {},
    Fault.SILENT_HEARTBEAT: {},
    Fault.LATENCY: {
        "milliseconds": _Parameter(_milliseconds, required=True),
        "path_prefix": _Parameter(_text),
    },
    Fault.REFUSE_CONNECTIONS: {},
    Fault.REVOKED_TOKEN: {"user": _Parameter(_user, required=True)},
    Fault.DROP_EVENT: _EVENT_PARAMETERS,
    Fault.DUPLICATE_EVENT: _EVENT_PARAMETERS,
    Fault.REORDER_EVENTS: {},
}


@dataclass(slots=True)
class Faults:
    """Which faults are on, with their parameters.

    Attributes:
        held_up: The waits of requests that the latency holds up; they end with it.
    """

    _active: dict[Fault, dict[str, Any]] = field(default_factory=dict)
    held_up: set[Future[None]] = field(default_factory=set)

    def __contains__(self, fault: Fault) -> bool:
        return fault in self._active

    @property
    def active(self) -> Mapping[str, Mapping[str, Any]]:
        """The faults that are on, by name; ``times`` is what is left of it."""
        return {str(fault): dict(parameters) for fault, parameters in self._active.items()}

    def set(self, name: str, parameters: object) -> Fault:
        """Switch a fault on, or give one that is on new parameters.

        Args:
            name: One of ``Fault``.
            parameters: JSON object with the parameters that ``PARAMETERS`` lists for it.

        Raises:
            FaultError: Unknown fault, unknown or missing parameter, or an impossible value.
        """
        fault = parse_fault(name)
        allowed = PARAMETERS[fault]
        names = ", ".join(allowed) or "none"
        if not isinstance(parameters, dict):
            raise FaultError(f"fault {name}: the parameters must be a JSON object (allowed: {names})")
        for unknown in parameters.keys() - allowed.keys():
            raise FaultError(f"fault {name}: unknown parameter {unknown!r} (allowed: {names})")
        values = {}
        for parameter_name, parameter in allowed.items():
            if parameter_name not in parameters:
                if parameter.required:
                    raise FaultError(f"fault {name}: {parameter_name!r} is missing (allowed: {names})")
                continue
            try:
                values[parameter_name] = parameter.read(parameters[parameter_name])
            except ValueError as error:
                got = parameters[parameter_name]
                raise FaultError(
                    f"fault {name}: parameter {parameter_name!r} must be {error}, got {got!r}"
                ) from error
        self._active[fault] = values
        return fault

    def clear(self, fault: Fault) -> bool:
        """Switch a fault off; tells whether it was on."""
        if fault is Fault.LATENCY:
            for wait in self.held_up:
                wait.cancel()
        return self._active.pop(fault, None) is not None

    def consume(self, fault: Fault) -> bool:
        """Whether the fault is on; counts one of its ``times`` and switches it off after the last."""
        parameters = self._active.get(fault)
        if parameters is None:
            return False
        times = parameters.get("times")
        if times == 1:
            del self._active[fault]
        elif times is not None:
            parameters["times"] = times - 1
        return True

    def consume_for_event(self, fault: Fault, object_type: str, state: str | None) -> bool:
        """As ``consume``, if the event is of the type and the state that the fault asks for."""
        parameters = self._active.get(fault, {})
        if parameters.get("object_type", object_type) != object_type or parameters.get("state", state) != state:
            return False
        return self.consume(fault)

    def latency(self, path: str) -> timedelta | None:
        """How long a request to this path is held up, if it is."""
        parameters = self._active.get(Fault.LATENCY)
        if parameters is None or not path.startswith(parameters.get("path_prefix", "")):
            return None
        return timedelta(milliseconds=parameters["milliseconds"])

    def revokes(self, user_identifier: str) -> bool:
        """Whether the token of this user is refused."""
        return self._active.get(Fault.REVOKED_TOKEN, {}).get("user") == user_identifier


def parse_fault(name: str) -> Fault:
    """The fault with this name.

    Raises:
        FaultError: There is none; the text lists those there are.
    """
    try:
        return Fault(name)
    except ValueError:
        raise FaultError(f"unknown fault {name!r} (known: {', '.join(Fault)})") from None
