"""A second region of the event bus: brokers of its own, to which a mirror copies what the first one's have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from testyard.lab.lifetime import Startable
from testyard.lab.servers.kafka_mirror import KafkaMirror
from testyard.lab.servers.kafka_mock import MockKafka

HOME = "home"
AWAY = "away"


class SecondRegion(Startable):
    """Owns the brokers of the second region, and a mirror in each direction.

    Args:
        home: The first region's brokers.
        topics: What is mirrored; the topics have as many partitions in both regions.
        partitions: How many that is.
    """

    def __init__(self, home: str, topics: Sequence[str], partitions: int) -> None:
        self.kafka = MockKafka()
        self._home = home
        self._topics = topics
        self._partitions = partitions
        self._mirrors: list[KafkaMirror] = []

    def start(self) -> None:
        """Start the brokers and the mirrors."""
        try:
            self.kafka.start()
            self.kafka.create_topics(dict.fromkeys(self._topics, self._partitions))
            away = self.kafka.bootstrap_servers
            for source, target, names in ((self._home, away, (HOME, AWAY)), (away, self._home, (AWAY, HOME))):
                mirror = KafkaMirror(source, target, self._topics, source_region=names[0], target_region=names[1])
                self._mirrors.append(mirror)
                mirror.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the mirrors, then the brokers; safe to call again."""
        while self._mirrors:
            self._mirrors.pop().stop()
        self.kafka.stop()

    def cut(self) -> None:
        """Let nothing pass between the regions."""
        for mirror in self._mirrors:
            mirror.pause()

    def mend(self) -> None:
        """Let the mirrors go on where the cut has been."""
        for mirror in self._mirrors:
            mirror.resume()

    def wait_until_level(self, within: timedelta) -> None:
        """Wait until each region has what the other one has.

        Raises:
            NotMetError: It takes longer.
        """
        for mirror in self._mirrors:
            mirror.wait_until_level(within)
