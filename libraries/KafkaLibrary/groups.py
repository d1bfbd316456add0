"""Keywords about consumer groups."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from assertionengine import AssertionOperator
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline, wait_until
from testyard.core.tables import html_table
from testyard.kafka.event import partition_called, place_of
from testyard.kafka.groups import GroupState, Member, committed_offsets, describe, lags

from KafkaLibrary.checking import AT_ONCE, Check
from KafkaLibrary.session import Session

LAG_COLUMNS = ("partition", "committed", "end", "lag")
MEMBER_COLUMNS = ("member", "client", "host", "partitions")


class GroupKeywords:
    """Keywords about consumer groups."""

    _session: Session

    @keyword(tags=["Getter", "Assertion", "Wait", "Evidence"])
    def consumer_lag(
        self,
        group: str,
        place: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> int:
        """Read how many events of a topic a group has not committed yet; draws them by partition.

        Where the group has committed nothing, every event that is there counts.

        Args:
            group: The consumer group's id.
            place: A topic, or one of its partitions, such as `orders/0`.
            assertion_operator: `==`, `!=`, `<`, `>=`, `validate`…
            assertion_expected: What the lag is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            retry_for: How long the lag may take to become right.
            alias: The connection.

        Returns:
            The lag, or what the operator makes of it.

        Raises:
            AssertionError: The lag is not right (in time).
            UserError: There is no such topic or partition, or no broker answers.

        Example:
            | Consumer Lag | database-adapter | orders | == | 0 | retry_for=5s |
        """
        connection = self._session.connections.get(alias)
        check = Check(assertion_operator, assertion_expected, message, retry_for)
        partitions = connection.partitions_of(place)
        last: list[tuple[object, ...]] = []

        def read() -> int:
            found = lags(connection, group, partitions)
            last[:] = [
                (place_of(*it.partition), "none" if it.committed is None else it.committed, it.end, it.lag)
                for it in found
            ]
            return sum(it.lag for it in found)

        name = f"The lag of {group} on {place}"
        try:
            lag: int = check.until_right(read, name)
        finally:
            logger.info(html_table(name, LAG_COLUMNS, last), html=True)
        return lag

    @keyword(tags=["Getter", "Assertion", "Wait"])
    def committed_offset(
        self,
        group: str,
        partition: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> int | None:
        """Read where a group would go on in a partition, and check it when an operator is given.

        Args:
            group: The consumer group's id.
            partition: Such as `orders/0`.
            assertion_operator: `==`, `!=`, `<`, `>=`, `validate`…
            assertion_expected: What the offset is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            retry_for: How long the offset may take to become right.
            alias: The connection.

        Returns:
            The offset, `None` when nothing is committed, or what the operator makes of it.

        Raises:
            AssertionError: The offset is not right (in time).
            UserError: There is no such topic or partition, or no broker answers.

        Example:
            | Committed Offset | database-adapter | orders/0 | == | 100 | retry_for=5s |
        """
        connection = self._session.connections.get(alias)
        check = Check(assertion_operator, assertion_expected, message, retry_for)
        (chosen,) = connection.chosen_partitions(*partition_called(partition))
        name = f"The offset that {group} has committed in {partition}"
        offset: int | None = check.until_right(
            lambda: committed_offsets(connection, group, [chosen])[chosen], name
        )
        logger.info(f"{name} is {'none' if offset is None else offset}.")
        return offset

    @keyword(tags=["Getter", "Assertion", "Wait"])
    def consumer_group_state(
        self,
        group: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> str:
        """Read what a group is doing, and check it when an operator is given.

        Args:
            group: The consumer group's id.
            assertion_operator: `==`, `!=`, `contains`, `validate`…
            assertion_expected: What the state is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            retry_for: How long the state may take to become right.
            alias: The connection.

        Returns:
            `STABLE`, `EMPTY` (nobody is in it), `DEAD` (nobody knows it), `PREPARING_REBALANCE`,
            `COMPLETING_REBALANCE`, `ASSIGNING` or `RECONCILING`; or what the operator makes of it.

        Raises:
            AssertionError: The state is not right (in time).
            UserError: No broker answers, or the brokers cannot tell.

        Example:
            | Consumer Group State | database-adapter | == | STABLE | retry_for=10s |
        """
        connection = self._session.connections.get(alias)
        check = Check(assertion_operator, assertion_expected, message, retry_for)
        state: str = check.until_right(lambda: describe(connection, group).state.name, f"The state of {group}")
        logger.info(f"The state of {group} is {state}.")
        return state

    @keyword(tags=["Getter", "Evidence"])
    def consumer_group_members(self, group: str, *, alias: str = "default") -> list[Member]:
        """Draw and return who is in a group.

        Args:
            group: The consumer group's id.
            alias: The connection.

        Returns:
            For each member its `id`, `client_id`, `host` and `partitions`, such as `orders/0`.

        Raises:
            UserError: No broker answers, or the brokers cannot tell.

        Example:
            | ${members} = | Consumer Group Members | database-adapter |
            | Length Should Be | ${members} | 2 |
        """
        members = describe(self._session.connections.get(alias), group).members
        rows = [(it.id, it.client_id, it.host, ", ".join(it.partitions)) for it in members]
        logger.info(html_table(f"Members of {group}: {len(rows)}", MEMBER_COLUMNS, rows), html=True)
        return list(members)

    @keyword(tags=["Assertion", "Wait"])
    def consumer_group_should_have_members(
        self, group: str, count: int, *, within: timedelta = timedelta(seconds=30), alias: str = "default"
    ) -> list[Member]:
        """Wait until so many members are in a group, the group is at rest, and each of them has partitions.

        Args:
            group: The consumer group's id.
            count: How many members.
            within: Give up after this time.
            alias: The connection.

        Returns:
            The members, as `Consumer Group Members` does.

        Raises:
            NotMetError: It is not so, in time; tells the last members and their partitions.
            UserError: No broker answers, or the brokers cannot tell.

        Example:
            | Consumer Group Should Have Members | database-adapter | 2 | within=10s |
        """
        connection = self._session.connections.get(alias)
        found = wait_until(
            lambda: describe(connection, group),
            lambda told: (
                told.state is GroupState.STABLE
                and len(told.members) == count
                and all(member.partitions for member in told.members)
            ),
            Deadline(within),
            f"the group {group} to have {count} members with partitions",
        )
        return list(found.members)
