"""Keywords that steer a collector."""

from __future__ import annotations

from robot.api.deco import keyword
from testyard.kafka.event import partition_called, place_of

from KafkaLibrary.session import DEFAULT_COLLECTOR, Session
from KafkaLibrary.showing import show_offsets


class SteeringKeywords:
    """Keywords that steer a collector."""

    _session: Session

    @keyword(tags=["Setup"])
    def pause_collecting_events(self, name: str = DEFAULT_COLLECTOR, *, alias: str = "default") -> None:
        """Let a collector read no more for now; it stays a member of its group, whose lag grows.

        Args:
            name: The collector.
            alias: The connection.

        Example:
            | Pause Collecting Events | slow |
        """
        self._session.connections.get(alias).collector(name).pause()

    @keyword(tags=["Setup"])
    def resume_collecting_events(self, name: str = DEFAULT_COLLECTOR, *, alias: str = "default") -> None:
        """Let a collector read on where it was paused.

        Args:
            name: The collector.
            alias: The connection.

        Example:
            | Resume Collecting Events | slow |
        """
        self._session.connections.get(alias).collector(name).resume()

    @keyword(tags=["Setup"])
    def collect_events_again_from(
        self, partition: str, offset: int, *, name: str = DEFAULT_COLLECTOR, alias: str = "default"
    ) -> None:
        """Let a collector go to another offset of a partition and read on from there; what it has, it keeps.

        Args:
            partition: Such as `orders/0`.
            offset: The first offset to read.
            name: The collector.
            alias: The connection.

        Raises:
            UserError: The collector does not read that partition; lists what it reads.

        Example:
            | Collect Events Again From | orders/0 | 17 |
        """
        self._session.connections.get(alias).collector(name).seek(partition_called(partition), offset)

    @keyword(tags=["Setup"])
    def commit_collected_offsets(self, name: str = DEFAULT_COLLECTOR, *, alias: str = "default") -> dict[str, int]:
        """Commit for a collector's group what it has read.

        Args:
            name: The collector.
            alias: The connection.

        Returns:
            For each partition, such as `orders/0`, the offset that the group would go on with.

        Raises:
            UserError: The collector is in no group, or the group refuses.

        Example:
            | Collect Events | orders | group=audit | since=BEGINNING |
            | Kafka Event Should Arrive | orders | key=${workflow} |
            | Commit Collected Offsets |
        """
        committed = self._session.connections.get(alias).collector(name).commit()
        offsets = {place_of(*partition): offset for partition, offset in committed.items()}
        show_offsets(f"Committed by '{name}'", offsets)
        return offsets
