"""Drive a pipeline scheduling service, wait for its runs, and check their histories (document 002)."""

from __future__ import annotations

from robot.api.deco import library
from testyard import __version__
from testyard.core.listening import MaskingListener

from PipelineLibrary.customers import CustomerKeywords
from PipelineLibrary.running import RunKeywords
from PipelineLibrary.session import Session


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class PipelineLibrary(CustomerKeywords, RunKeywords, MaskingListener):
    """Drive a pipeline scheduling service as its admin, wait for its runs, and check their histories.

    REST itself is spoken with RequestsLibrary: `Connect To Pipeline Service` and `Act As Customer` open its
    sessions, with the right key in the header, masked in every log, as is every key that an answer brings.
    """

    def __init__(self) -> None:
        MaskingListener.__init__(self)
        self._session = Session()
        self._made_up: list[str] = []
        self._api_keys: list[str] = []

    def close(self) -> None:
        """Disconnect when the run ends."""
        self._session.leave()
