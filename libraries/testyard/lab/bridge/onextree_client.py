"""OnexTree, as other services call it: repeated when it does not answer, and remembered for a while.

Who calls decides on breakers, and on how long all of it may take.

Source: contract page "event-bus", 3.9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

from blake3 import blake3
from cachetools import TTLCache
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.lab.bridge.calls import RefusalError, ServiceCalls, UnreachableError
from testyard.lab.bridge.discovery.services import ONEXTREE
from testyard.lab.bridge.settings import Settings
from testyard.lab.bridge.tracing import NO_TRACING, Tracing
from testyard.lab.waiting import Backoff, elapse

RETRIES: Final = 3
CACHED_FOR: Final = timedelta(seconds=300)
CACHED_ENTRIES: Final = 1000
EVICTED_AT_ONCE: Final = 0.2
"""The share of a full cache that makes room for what is new."""

QUALITY: Final = 0.35
PATTERNS: Final = 0.30
COVERAGE: Final = 0.20
RELATIONSHIPS: Final = 0.15
ENOUGH: Final = 3
"""So many patterns, or relationships, are as good as more."""

DEGRADED: Final = "unavailable"


class OnextreeError(Exception):
    """OnexTree has given no answer."""


class OnextreeUnavailableError(OnextreeError):
    """It does not answer, or cannot work now."""


class OnextreeTimeoutError(OnextreeError, TimeoutError):
    """It took too long."""


class OnextreeRefusedError(OnextreeError):
    """It refuses the request.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ConfidenceLevel(Enum):
    """How far intelligence can be relied on, by the least confidence of each level."""

    HIGH = 0.8
    MEDIUM = 0.5
    LOW = 0.2
    MINIMAL = 0.0

    @classmethod
    def of(cls, confidence: float) -> ConfidenceLevel:
        """The level of a confidence."""
        return next(level for level in cls if confidence >= level.value)


class Intelligence(BaseModel):
    """What OnexTree has to say about a file.

    Attributes:
        analysis_type: What it took the file for.
        confidence_score: From 0 to 1: 0.35 times the quality, 0.30 the patterns, 0.20 the coverage and 0.15 the
            relationships.
        confidence_level: ``HIGH`` from 0.8, ``MEDIUM`` from 0.5, ``LOW`` from 0.2, else ``MINIMAL``.
        quality: How sure the service is, from 0 to 1.
        recommendations: What it recommends.
        patterns: What it sees in the project.
        relationships: What belongs together.
        metadata: How it came to that.
        degraded: Whether this only stands for intelligence that could not be had.
        reason: Why not; None when it could.
        cached: Whether it was remembered.
    """

    model_config = ConfigDict(frozen=True)

    analysis_type: str
    confidence_score: float = Field(ge=0, le=1)
    confidence_level: str
    quality: float = Field(ge=0, le=1)
    recommendations: tuple[str, ...] = ()
    patterns: tuple[Any, ...] = ()
    relationships: tuple[Any, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    degraded: bool = False
    reason: str | None = None
    cached: bool = False


class _Analysis(BaseModel):
    """The part ``intelligence`` of the service's answer."""

    analysis_type: str
    confidence_score: float = Field(ge=0, le=1)
    recommendations: tuple[str, ...] = ()


class _Answer(BaseModel):
    """The answer of ``POST /intelligence``."""

    intelligence: _Analysis
    patterns: tuple[Any, ...] = ()
    relationships: tuple[Any, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)


def confidence_of(quality: float, patterns: int, coverage: float, relationships: int) -> float:
    """How far intelligence can be relied on.

    Args:
        quality: How sure the service is, from 0 to 1.
        patterns: How many it has found; three are as good as more.
        coverage: The share of the project that it has looked at, from 0 to 1.
        relationships: How many it has found; three are as good as more.

    Example:
        >>> confidence_of(0.9, patterns=3, coverage=1.0, relationships=3)
        0.965
    """
    score = (
        QUALITY * quality
        + PATTERNS * min(patterns / ENOUGH, 1)
        + COVERAGE * min(coverage, 1)
        + RELATIONSHIPS * min(relationships / ENOUGH, 1)
    )
    return round(score, 6)


def degraded_intelligence(reason: str) -> Intelligence:
    """What stands for intelligence that could not be had; nobody may take it for some.

    Args:
        reason: Why it could not be had.
    """
    return Intelligence(
        analysis_type=DEGRADED,
        confidence_score=0,
        confidence_level=ConfidenceLevel.MINIMAL.name,
        quality=0,
        degraded=True,
        reason=reason,
    )


class OnextreeClient:
    """Calls OnexTree.

    Args:
        settings: Of all services: where it is found.
        url: Where it is, if that is known.
        timeout: How long one attempt may take; that of the orchestrator when not given.
        retries: How often it is asked again when it does not answer, or cannot work.
        headers: Says what every request carries along: the trace it belongs to.
        tracing: Says which trace each call belongs to.

    Example:
        >>> async with OnextreeClient(settings) as onextree:
        ...     found = await onextree.intelligence("src/login.py")
        ...     found.confidence_level
        'HIGH'
    """

    def __init__(
        self,
        settings: Settings,
        *,
        url: str | None = None,
        timeout: timedelta | None = None,
        retries: int = RETRIES,
        headers: Callable[[], Mapping[str, str]] = dict,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        timeout = timeout or settings.orchestrator.onextree_timeout
        self._calls = ServiceCalls(settings.discovery, ONEXTREE, url=url, timeout=timeout, tracing=tracing)
        self._retries = retries
        self._headers = headers
        self._cache: TTLCache[tuple[str, bool, bool], Intelligence] = TTLCache(
            CACHED_ENTRIES, CACHED_FOR.total_seconds()
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, problem, trace)

    async def ask(self) -> None:
        """Ask whether the OnexTree is there; raises whatever says that it is not."""
        await self._calls.call("GET", "/health")

    async def intelligence(
        self,
        context: str,
        *,
        include_patterns: bool = True,
        include_relationships: bool = True,
        retries: int | None = None,
    ) -> Intelligence:
        """What OnexTree has to say.

        Args:
            context: What it is about: a path, a content, a description.
            include_patterns: Whether it is to look for patterns.
            include_relationships: Whether it is to look for what belongs together.
            retries: How often it is asked again; as often as ever when not given.

        Raises:
            OnextreeUnavailableError: It does not answer, or cannot work now, however often it was asked.
            OnextreeTimeoutError: It took too long, however often it was asked.
            OnextreeRefusedError: It refuses.
        """
        key = (blake3(context.encode()).hexdigest(), include_patterns, include_relationships)
        remembered = self._cache.get(key)
        if remembered is not None:
            return remembered.model_copy(update={"cached": True})
        body = {
            "context": context,
            "include_patterns": include_patterns,
            "include_relationships": include_relationships,
        }
        found = _intelligence(await self._call("POST", "/intelligence", retries=retries, json=body))
        # As long as it has no tree it knows nothing, and soon it may.
        if found.quality > 0:
            self._remember(key, found)
        return found

    async def generate(self, project_root: str) -> dict[str, Any]:
        """Let OnexTree read a project; what was remembered of the last one is forgotten.

        Args:
            project_root: A directory on its machine.

        Raises:
            OnextreeError: As of ``intelligence``.
        """
        made: dict[str, Any] = await self._call("POST", "/generate", json={"project_root": project_root})
        self._cache.clear()
        return made

    async def query(self, query: str, query_type: str = "auto", limit: int = 100) -> Sequence[dict[str, Any]]:
        """Find files.

        Args:
            query: What is looked for.
            query_type: ``auto``, ``extension``, ``name`` or ``path``.
            limit: How many at most.

        Raises:
            OnextreeError: As of ``intelligence``.
        """
        body = {"query": query, "query_type": query_type, "limit": limit}
        results: list[dict[str, Any]] = (await self._call("POST", "/query", json=body))["results"]
        return results

    def _remember(self, key: tuple[str, bool, bool], found: Intelligence) -> None:
        self._cache.expire()
        if len(self._cache) >= CACHED_ENTRIES:
            for _ in range(int(CACHED_ENTRIES * EVICTED_AT_ONCE)):
                self._cache.popitem()
        self._cache[key] = found

    async def _call(self, method: str, path: str, *, retries: int | None = None, **options: Any) -> Any:
        retries = self._retries if retries is None else retries
        backoff = Backoff()
        for attempt in range(retries + 1):
            try:
                return await self._calls.call(method, path, headers=self._headers(), **options)
            except TimeoutError as problem:
                failure: OnextreeError = OnextreeTimeoutError(str(problem) or "onextree timeout")
            except UnreachableError as problem:
                failure = OnextreeUnavailableError(str(problem))
            except RefusalError as problem:
                detail = problem.body.get("detail") if isinstance(problem.body, dict) else None
                if problem.status < 500:
                    raise OnextreeRefusedError(str(detail or problem), problem.status) from problem
                failure = OnextreeUnavailableError(str(detail or problem))
            if attempt < retries:
                await elapse(backoff.next())
        raise failure


def _intelligence(body: Any) -> Intelligence:
    try:
        answer = _Answer.model_validate(body)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise OnextreeUnavailableError(f"the answer is not understood: {where}: {first['msg']}") from problem
    quality = answer.intelligence.confidence_score
    coverage = answer.metadata.get("coverage", 0.0)
    confidence = confidence_of(quality, len(answer.patterns), float(coverage), len(answer.relationships))
    return Intelligence(
        analysis_type=answer.intelligence.analysis_type,
        confidence_score=confidence,
        confidence_level=ConfidenceLevel.of(confidence).name,
        quality=quality,
        recommendations=answer.intelligence.recommendations,
        patterns=answer.patterns,
        relationships=answer.relationships,
        metadata=answer.metadata,
    )
