"""Defects around orders that B refuses, usage reports, stuck orders and long lists (USR-X1, X2, X7, X8).

All of them are the agent's, put into the installed package in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from testyard.lab.sabotage.defect import Defect, agent_backend, defect, wrap

PAGE = slice(100, 200)


def _reporter() -> Any:
    from waldur_site_agent.common.processors import OfferingReportProcessor

    return OfferingReportProcessor


def _long_lists() -> tuple[Any, ...]:
    from waldur_api_client.api.marketplace_offering_users import marketplace_offering_users_list
    from waldur_api_client.api.marketplace_orders import marketplace_orders_list

    return marketplace_offering_users_list, marketplace_orders_list


# Orders that B refuses.


@defect("rejected-order-done", "an order that B rejected is reported done on A", "USR-X1")
def rejected_order_done() -> None:
    _on_rejection(lambda _backend, _order, _problem: True)


@defect("rejected-order-waits", "an order that B rejected is taken for one that is still pending", "USR-X1")
def rejected_order_waits() -> None:
    _on_rejection(lambda _backend, _order, _problem: False)


@defect("rejection-explained", "B's reason for a rejection reaches A: the known issue is fixed", "USR-X1")
def rejection_explained() -> None:
    def explain(backend: Any, order: str, problem: Exception) -> bool:
        reason = backend.client.get_order(UUID(order)).provider_rejection_comment
        raise type(problem)(f"{problem}: {reason}") from problem

    _on_rejection(explain)


@defect("rejection-unexplained", "A's order errs without a word about B's", "USR-X1")
def rejection_unexplained() -> None:
    def hide(_backend: Any, _order: str, problem: Exception) -> bool:
        raise type(problem)("Internal backend error.") from problem

    _on_rejection(hide)


def _on_rejection(answer: Callable[[Any, str, Exception], bool]) -> None:
    from waldur_site_agent.backend.exceptions import BackendError

    def check(original: Any, self: Any, order: str) -> bool:
        try:
            pending: bool = original(self, order)
        except BackendError as problem:
            return answer(self, order, problem)
        return pending

    wrap(agent_backend(), "check_pending_order", check)


# Usage reports.


@defect("usage-multiplied", "usage is multiplied by the factor instead of divided", "USR-X2")
def usage_multiplied() -> None:
    _convert_usage(lambda amount, factor: amount * factor)


@defect("usage-unconverted", "usage is reported in B's units", "USR-X2")
def usage_unconverted() -> None:
    _convert_usage(lambda amount, _factor: amount)


def _convert_usage(change: Callable[[float, float], float]) -> None:
    from waldur_site_agent.common.component_mapping import ComponentMapper

    def convert(_original: Any, self: Any, usage: dict[str, float]) -> dict[str, float]:
        source: dict[str, float] = {}
        for target, amount in usage.items():
            for mapping in self._reverse_map.get(target, []):
                name = mapping.source_component
                source[name] = source.get(name, 0) + change(amount, mapping.factor)
        return source

    wrap(ComponentMapper, "convert_usage_from_target", convert)


@defect("usage-of-one-target", "of several components on B only the last one counts", "USR-X2")
def usage_of_one_target() -> None:
    from waldur_site_agent.common.component_mapping import ComponentMapper

    def convert(original: Any, self: Any, usage: dict[str, float]) -> dict[str, float]:
        source: dict[str, float] = {}
        for target, amount in usage.items():
            source |= original(self, {target: amount})
        return source

    wrap(ComponentMapper, "convert_usage_from_target", convert)


@defect("other-months-counted", "what B recorded for any month is added to this one", "USR-X2")
def other_months_counted() -> None:
    _forget_the_month("get_component_usages")


@defect("other-months-of-users-counted", "a user's part of any month is added to this one", "USR-X2")
def other_months_of_users_counted() -> None:
    _forget_the_month("get_component_user_usages")


def _forget_the_month(name: str) -> None:
    from waldur_site_agent_waldur.client import WaldurClient

    wrap(WaldurClient, name, lambda original, self, resource, **_: original(self, resource))


@defect("month-before-forgotten", "only this month is ever reported", "USR-X2")
def month_before_forgotten() -> None:
    reporter = _reporter()
    periods = reporter._compute_reporting_periods
    reporter._compute_reporting_periods = staticmethod(lambda now, _number: periods(now, 1))


@defect("anomaly-guard-off", "usage that decreases is reported", "USR-X2")
def anomaly_guard_off() -> None:
    wrap(_reporter(), "_check_usage_anomaly", lambda _original, _self, *_: False)


@defect("anomaly-guard-stuck", "after usage has decreased once, nothing more is reported", "USR-X2")
def anomaly_guard_stuck() -> None:
    def check(original: Any, self: Any, component: str, amount: float, existing: Any) -> bool:
        held: set[object] = self.resource_backend.__dict__.setdefault("held_back", set())
        if original(self, component, amount, existing):
            held.add(existing[0].uuid)
        return bool(existing) and existing[0].uuid in held

    wrap(_reporter(), "_check_usage_anomaly", check)


@defect("anomaly-guard-spares-parts", "usage with parts by user is exempt: the known issue is fixed", "USR-X2")
def anomaly_guard_spares_parts() -> None:
    from waldur_site_agent.common import processors

    def dashed(original: Any, **options: Any) -> Any:
        parts = original(**options)
        for part in parts:
            if part.component_usage:
                address, _, uuid = part.component_usage.rstrip("/").rpartition("/")
                part.component_usage = f"{address}/{UUID(uuid)}/"
        return parts

    wrap(processors.marketplace_component_user_usages_list, "sync_all", dashed)


@defect("user-usage-dropped", "the parts of the users are not reported", "USR-X2")
def user_usage_dropped() -> None:
    wrap(_reporter(), "_submit_bulk_user_usages_for_resource", lambda _original, _self, *_, **__: None)


@defect("user-usage-of-nobody", "the parts of the users belong to no account", "USR-X2")
def user_usage_of_nobody() -> None:
    wrap(_reporter(), "_get_cached_offering_users", lambda _original, _self: [])


@defect("usage-told-again", "usage is reported in every cycle, also when nothing has changed", "USR-X2")
def usage_told_again() -> None:
    _reporter()._usage_matches_existing = staticmethod(lambda *_: False)


# Stuck orders.


@defect("stuck-order-ignored", "an order that nobody has touched for long stays as it is", "USR-X7")
def stuck_order_ignored() -> None:
    from waldur_site_agent.event_processing import utils

    wrap(utils, "run_periodic_order_reconciliation", lambda _original, *_, **__: None)


@defect("fresh-order-processed", "an order that was touched just now counts as stuck", "USR-X7")
def fresh_order_processed() -> None:
    from waldur_api_client.api.marketplace_orders import marketplace_orders_list

    def listed(original: Any, **options: Any) -> Any:
        options.pop("modified_before", None)
        return original(**options)

    wrap(marketplace_orders_list, "sync_all", listed)


@defect("no-threshold-is-the-usual", "a threshold of zero is taken for none given", "USR-X7")
def no_threshold_is_the_usual() -> None:
    from waldur_site_agent.event_processing import utils

    def reconcile(original: Any, offerings: Any, stuck_threshold_minutes: int = 30) -> None:
        original(offerings, stuck_threshold_minutes=stuck_threshold_minutes or 30)

    wrap(utils, "run_periodic_order_reconciliation", reconcile)


# Long lists.


@defect("first-page-only", "of a long list only the first page is read", "USR-X8")
def first_page_only() -> None:
    _cut(lambda rows: rows[: PAGE.start])


@defect("second-page-missed", "of a long list the second page is left out", "USR-X8")
def second_page_missed() -> None:
    _cut(lambda rows: rows[: PAGE.start] + rows[PAGE.stop :])


@defect("last-of-page-missed", "the last entry of every page is left out", "USR-X8")
def last_of_page_missed() -> None:
    _cut(lambda rows: [row for number, row in enumerate(rows, start=1) if number % PAGE.start])


def _cut(change: Callable[[list[Any]], list[Any]]) -> None:
    for module in _long_lists():
        wrap(module, "sync_all", lambda original, **options: change(original(**options)))


USAGE_DEFECTS: tuple[Defect, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Defect))
