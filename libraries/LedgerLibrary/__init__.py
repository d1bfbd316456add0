"""Check what was attempted against what was acknowledged, received and stored, across every protocol."""

from __future__ import annotations

from robot.api.deco import library
from testyard import __version__
from testyard.core.listening import MaskingListener
from testyard.core.percentiles import Percentile
from testyard.ledger.shares import Share

from LedgerLibrary.checking import CheckingKeywords
from LedgerLibrary.measuring import MeasuringKeywords
from LedgerLibrary.recording import RecordingKeywords
from LedgerLibrary.session import Session


@library(
    scope="GLOBAL",
    version=__version__,
    listener="SELF",
    doc_format="MARKDOWN",
    converters={Percentile: Percentile.parse, Share: Share.parse},
)
class LedgerLibrary(RecordingKeywords, CheckingKeywords, MeasuringKeywords, MaskingListener):
    """Check what was attempted against what was acknowledged, received and stored, across every protocol.

    A *ledger* is one history of events from any library: what was *attempted*, what came of it (*acknowledged*,
    *refused* or *indeterminate*), and where it arrived (*received* or *stored*). All moments are of one clock: the
    wall clock of this machine, which other processes on it share. An event is one event by its id, however often
    it was attempted. Every ledger has an *alias*, `default` when none is given.

    What can have become of an event, at the end that is looked at (`arrival`, `place`):

    - *lost*: acknowledged, and not there.
    - *indeterminate*: not there, and not known to be acknowledged or refused. That is no loss.
    - *recovered*: there, and not known to be acknowledged or refused.
    - *unexpected*: there, although it was never attempted, or was refused each time.
    - *duplicated*: there more than once.
    - *reordered*: there after an event with the same key that was attempted after it.
    - *late*: there, but later after its first attempt than it may be.

    Loss can only be judged when nothing more comes: wait for that (lag 0, the last offset), then say
    `Ledger Has Been Drained`. Sentences about whole histories refuse to judge one that is not drained.

    A percentile is one of the samples (nearest rank), and at least ten of them must lie on its shorter side: `p50`
    needs 20 samples, `p95` 200, `p99` 1000, `max` one. With fewer it is refused. An acknowledged event that has
    not arrived counts as longer than any other.
    """

    def __init__(self) -> None:
        MaskingListener.__init__(self)
        self._session = Session()

    def close(self) -> None:
        """Forget every ledger when the run ends."""
        self._session.close()
