"""Keywords that tell a ledger what happened."""

from __future__ import annotations

import time
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import UserError
from testyard.core.history import Kind
from testyard.ledger.moments import clock_time, moment_ns
from testyard.ledger.records import Fields, read_records

from LedgerLibrary.session import Session


class RecordingKeywords:
    """Keywords that tell a ledger what happened."""

    _session: Session

    @keyword(tags=["Setup"])
    def open_ledger(self, alias: str = "default") -> None:
        """Begin a new, empty ledger; one of the same name is forgotten.

        Args:
            alias: How it is called from now on.

        Example:
            | Open Ledger |
        """
        self._session.open(alias)

    @keyword(tags=["Setup"])
    def add_to_ledger(
        self,
        records: list[Any],
        *,
        kind: Kind | None = None,
        event: str | None = None,
        at: str | None = None,
        key: str | None = None,
        position: str | None = None,
        place: str = "",
        alias: str = "default",
    ) -> int:
        """Add what happened: happenings that another library returned, or rows with named fields.

        Rows are dictionaries: of a table, captured events, answers. `payload.id` names the field `id` of what
        `payload` holds. What is added twice has happened twice: read a table once, or into a new ledger.

        Args:
            records: Happenings, which need no more arguments than `alias`; or rows.
            kind: What the rows tell of: `attempted`, `acknowledged`, `refused`, `indeterminate`, `received` or
                `stored`.
            event: The rows' field with the event's id.
            at: The field with the moment: a datetime, a text in ISO 8601 (UTC when it has no zone) or nanoseconds
                since 1970.
            key: The field with the key that the order is kept by.
            position: The field with the place in that order, such as an offset.
            place: Where it happened, such as the table's name; no field.
            alias: The ledger.

        Returns:
            How many were added.

        Raises:
            UserError: A row has no such field, or its value makes no sense; says which row and field.

        Example:
            | ${rows} = | Query | SELECT event_id, created_at, correlation_id FROM event_logs |
            | Add To Ledger | ${rows} | kind=stored | event=event_id | at=created_at | key=correlation_id |
            | ... | place=event_logs |
            | ${sent} = | Add To Ledger | ${happenings} |
        """
        named = {"kind": kind, "event": event, "at": at, "key": key, "position": position, "place": place or None}
        fields = None
        if any(value is not None for value in named.values()):
            if kind is None or event is None or at is None:
                missing = ", ".join(name for name in ("kind", "event", "at") if named[name] is None)
                message = f"Rows need kind, event and at to be understood; missing: {missing}."
                raise UserError(message)
            fields = Fields(kind, event, at, key, position, place)
        added = self._session.get(alias).add(read_records(records, fields))
        logger.info(f"Added {added} to the ledger '{alias}'.")
        return added

    @keyword(tags=["Setup"])
    def ledger_has_been_drained(self, reason: str = "", *, alias: str = "default") -> None:
        """Say that nothing more comes: whatever could arrive has arrived by now.

        Wait for it before: until the lag is 0, until the last offset was read. Reading tables may come later; but
        anything that is added and happened after this moment makes the ledger one that is not drained.

        Args:
            reason: How that is known, for the log.
            alias: The ledger.

        Example:
            | Ledger Has Been Drained | the group's lag is 0 |
        """
        self._session.get(alias).drained()
        logger.info(f"The ledger '{alias}' has been drained{f': {reason}' if reason else ''}.")

    @keyword(tags=["Setup"])
    def fault_begins_in_ledger(self, name: str = "fault", *, at: Any = None, alias: str = "default") -> None:
        """Mark that something is broken from now on, for `during=fault` and for recovery.

        Args:
            name: What is broken.
            at: Since when: a datetime, a text in ISO 8601 or nanoseconds since 1970; now, when not given.
            alias: The ledger.

        Raises:
            UserError: A fault of that name lasts already.

        Example:
            | Fault Begins In Ledger | broker killed |
        """
        moment = _moment(at)
        self._session.get(alias).faults.begin(name, moment)
        logger.info(f"Fault {name} begins at {clock_time(moment)} UTC.")

    @keyword(tags=["Setup"])
    def fault_ends_in_ledger(self, name: str = "fault", *, at: Any = None, alias: str = "default") -> None:
        """Mark that something is well again: recovery is measured from here.

        Args:
            name: What was broken.
            at: Since when, as for `Fault Begins In Ledger`: the moment in which the broken thing answers again.
            alias: The ledger.

        Raises:
            UserError: No fault of that name lasts.

        Example:
            | Fault Ends In Ledger | broker killed |
        """
        moment = _moment(at)
        self._session.get(alias).faults.end(name, moment)
        logger.info(f"Fault {name} ends at {clock_time(moment)} UTC.")


def _moment(at: Any) -> int:
    return time.time_ns() if at is None else moment_ns(at)
