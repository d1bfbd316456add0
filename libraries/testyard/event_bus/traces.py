"""One trace over several services: how its spans hang together, and what should be true of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.core.deadline import seconds
from testyard.core.errors import NotMetError, UserError


class Span(BaseModel):
    """A piece of work that one process did.

    Attributes:
        trace_id: What it is a part of.
        span_id: Which one it is.
        parent_id: What caused it; None: nothing else, it began the trace.
        name: Such as ``POST /api/v1/workflows``.
        kind: ``SERVER``, ``CLIENT``, ``PRODUCER``, ``CONSUMER`` or ``INTERNAL``.
        start_ns: When it began, in nanoseconds since 1970.
        end_ns: When it ended.
        service: Who did it.
        status: ``UNSET``, ``OK`` or ``ERROR``.
        attributes: What else is known of it.
    """

    model_config = ConfigDict(frozen=True)

    trace_id: str = Field(pattern="^[0-9a-f]{32}$")
    span_id: str = Field(pattern="^[0-9a-f]{16}$")
    parent_id: str | None = None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    service: str
    status: str = "UNSET"
    attributes: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def took(self) -> timedelta:
        """How long it took."""
        return _duration(self.end_ns - self.start_ns)


@dataclass(frozen=True)
class Hop:
    """Where a trace goes from one service to another.

    Attributes:
        cause: The last span of the service that it comes from.
        effect: The first span of the service that it goes to.
    """

    cause: Span
    effect: Span

    @property
    def took(self) -> timedelta:
        """From the beginning of the cause to the beginning of the effect: what the way took."""
        return _duration(self.effect.start_ns - self.cause.start_ns)

    def __str__(self) -> str:
        return f"{self.cause.service} -> {self.effect.service} by {self.effect.name!r} after {_text(self.took)}"


@dataclass(frozen=True)
class Caller:
    """Who begins a trace from outside: a test, which then knows the trace that it looks for.

    Attributes:
        trace_id: The trace.
        span_id: The parent of the first span of a service.

    Example:
        >>> caller = new_caller()
        >>> httpx.post(url, headers={"traceparent": caller.traceparent})
        >>> read_traces(spans)[caller.trace_id].parents_should_be_known(caller)
    """

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """The header that tells a service of it (W3C Trace Context)."""
        return f"00-{self.trace_id}-{self.span_id}-01"


def new_caller() -> Caller:
    """A caller with a trace of its own."""
    return Caller(token_hex(16), token_hex(8))


class Trace:
    """The spans of one trace.

    Args:
        spans: They belong to one trace; in any order, and each may be given more than once.

    Example:
        >>> trace = read_traces(spans)["4bf92f3577b34da6a3ce929d0e0e4736"]
        >>> trace.parents_should_be_known()
        >>> trace.services_should_be_visited(["orchestrator", "metadata-stamping", "reducer"])
        >>> [hop.took for hop in trace.hops()]
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self._by_id = {span.span_id: span for span in sorted(spans, key=lambda it: it.start_ns)}
        ids = sorted({span.trace_id for span in self._by_id.values()})
        if len(ids) != 1:
            message = f"A trace has spans of one trace, found {len(ids)}: {', '.join(ids) or 'no span'}."
            raise UserError(message)
        self.trace_id = ids[0]
        self._children: defaultdict[str | None, list[Span]] = defaultdict(list)
        for span in self._by_id.values():
            self._children[span.parent_id].append(span)

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order in which they began."""
        return list(self._by_id.values())

    @property
    def services(self) -> list[str]:
        """Every service, in the order in which the trace came to it first."""
        return list(dict.fromkeys(span.service for span in self.spans))

    @property
    def took(self) -> timedelta:
        """From the beginning of the first span to the end of the last one."""
        return _duration(max(it.end_ns for it in self.spans) - self.spans[0].start_ns)

    def roots(self) -> list[Span]:
        """The spans that nothing caused."""
        return list(self._children.get(None, ()))

    def orphans(self) -> list[Span]:
        """The spans whose parent is not here: a process has lost it, was not asked, or is still busy with it."""
        return [it for it in self.spans if it.parent_id is not None and it.parent_id not in self._by_id]

    def children(self, span: Span) -> list[Span]:
        """What a span has caused."""
        return list(self._children.get(span.span_id, ()))

    def hops(self) -> list[Hop]:
        """Each step from one service to another one, in the order in which they were made."""
        return [
            Hop(self._by_id[span.parent_id], span)
            for span in self.spans
            if span.parent_id in self._by_id and self._by_id[span.parent_id].service != span.service
        ]

    def tree(self) -> str:
        """The spans as people read them: below each one what it caused, with its beginning and its duration."""
        lines: list[str] = []
        shown: set[str] = set()
        for top in [*self.roots(), *self.orphans(), *self.spans]:
            for depth, span in self._below(top, shown):
                missing = f"(parent {span.parent_id} is missing) " if depth == 0 and span.parent_id else ""
                lines.append("  " * (depth + 1) + missing + self._line(span))
        return "\n".join([f"trace {self.trace_id}, {_spans(self.spans)}, {_text(self.took)}:", *lines])

    def _below(self, top: Span, shown: set[str]) -> Iterator[tuple[int, Span]]:
        waiting = [(0, top)]
        while waiting:
            depth, span = waiting.pop()
            if span.span_id not in shown:
                shown.add(span.span_id)
                yield depth, span
                waiting += [(depth + 1, it) for it in reversed(self.children(span))]

    def _line(self, span: Span) -> str:
        after = _duration(span.start_ns - self.spans[0].start_ns)
        error = " ERROR" if span.status == "ERROR" else ""
        return f"{span.service}: {span.name} [{span.kind}] +{_text(after)}, {_text(span.took)}{error}"

    # What should be true.

    def parents_should_be_known(self, caller: Caller | None = None) -> None:
        """Check that the trace has one beginning, and that what caused each other span is here.

        Args:
            caller: Who began it from outside; None: a service did.

        Raises:
            NotMetError: A parent is missing, or there is not one beginning; shows the tree.
        """
        outside = None if caller is None else caller.span_id
        orphans = [span for span in self.orphans() if span.parent_id != outside]
        if orphans:
            named = ", ".join(f"{it.service}: {it.name}" for it in orphans)
            raise self._unmet(f"no service has the parent of {_spans(orphans)}: {named}")
        beginnings = self.roots() + [span for span in self.orphans() if span.parent_id == outside]
        if len(beginnings) != 1:
            raise self._unmet(f"the trace is expected to have one beginning, found {len(beginnings)}")

    def services_should_be_visited(self, services: Sequence[str]) -> None:
        """Check that the trace came to these services, for the first time in this order; others may be in between.

        Args:
            services: Their names.

        Raises:
            NotMetError: It did not come to one of them, or in another order; shows the tree.
        """
        found = [service for service in self.services if service in set(services)]
        if found == list(services):
            return
        missing = [service for service in services if service not in found]
        why = f"never came to {', '.join(missing)}" if missing else f"came to them as {', '.join(found)}"
        raise self._unmet(f"the trace is expected to come to {', '.join(services)}, but {why}")

    def hop_should_exist(self, source: str, target: str, kind: str | None = None) -> Hop:
        """Check that one service caused work of another one, directly.

        Args:
            source: The service that caused it.
            target: The service that did it.
            kind: Of the caused span: ``SERVER`` is a request, ``CONSUMER`` a record; None: either.

        Returns:
            The first such hop.

        Raises:
            NotMetError: There is none; shows the tree.
        """
        for hop in self.hops():
            if (hop.cause.service, hop.effect.service) == (source, target) and kind in {None, hop.effect.kind}:
                return hop
        by = f" by a span of kind {kind}" if kind else ""
        raise self._unmet(f"no hop leads from {source} to {target}{by}")

    def hops_should_take_at_most(self, limit: timedelta) -> None:
        """Check how long the way from service to service took.

        Args:
            limit: The longest time.

        Raises:
            NotMetError: A hop took longer, or there is none; names those, and shows the tree.
        """
        hops = self.hops()
        if not hops:
            raise self._unmet("the trace is expected to go from service to service, but stays in one")
        slow = [str(hop) for hop in hops if hop.took > limit]
        if slow:
            raise self._unmet(
                f"{len(slow)} of {len(hops)} hops took longer than {seconds(limit)}: {'; '.join(slow)}"
            )

    def nothing_should_have_failed(self) -> None:
        """Check that no span has the status ``ERROR``.

        Raises:
            NotMetError: One has; names it, and shows the tree.
        """
        failed = [f"{it.service}: {it.name}" for it in self.spans if it.status == "ERROR"]
        if failed:
            raise self._unmet(f"nothing is expected to fail, found {_spans(failed)}: {', '.join(failed)}")

    def _unmet(self, problem: str) -> NotMetError:
        return NotMetError(f"{problem[0].upper()}{problem[1:]}.\n{self.tree()}")


def read_traces(spans: Iterable[Mapping[str, Any]]) -> dict[str, Trace]:
    """Sort spans by their traces.

    Args:
        spans: As the services tell them (``GET /traces``) or a collector has them, of any number of services.

    Returns:
        The traces by their ids, in the order in which they began.

    Raises:
        UserError: Something is no span; names what is wrong.
    """
    by_trace: defaultdict[str, list[Span]] = defaultdict(list)
    for span in map(_span, spans):
        by_trace[span.trace_id].append(span)
    traces = sorted(map(Trace, by_trace.values()), key=lambda it: it.spans[0].start_ns)
    return {trace.trace_id: trace for trace in traces}


def only_trace(spans: Iterable[Mapping[str, Any]]) -> Trace:
    """The trace that all of these spans belong to.

    Args:
        spans: As ``read_traces`` takes them.

    Raises:
        NotMetError: They belong to several, or there are none; shows each tree.
        UserError: Something is no span.
    """
    traces = read_traces(spans)
    if len(traces) == 1:
        return next(iter(traces.values()))
    trees = "\n".join(trace.tree() for trace in traces.values())
    message = f"All spans are expected to belong to one trace, found {len(traces)}.\n{trees}".rstrip()
    raise NotMetError(message)


def _span(given: Mapping[str, Any]) -> Span:
    try:
        return Span.model_validate(given)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        message = f"Not a span: {where}: {first['msg']}, found {first['input']!r}."
        raise UserError(message) from None


def _spans(found: Sequence[object]) -> str:
    return f"{len(found)} span{'' if len(found) == 1 else 's'}"


def _duration(nanoseconds: int) -> timedelta:
    return timedelta(microseconds=nanoseconds / 1000)


def _text(duration: timedelta) -> str:
    return (
        f"{duration / timedelta(milliseconds=1):.3g} ms" if duration < timedelta(seconds=1) else seconds(duration)
    )
