"""Keeps one lab for a whole run: between suites its processes wait, emptied, instead of being started again."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from testyard.core.errors import UserError
from testyard.lab.supervisor import Supervisor, private_path, remove_stale_directories


class LabKeeper:
    """Hands out the lab, takes it back, and ends it with the run.

    Attributes:
        lab: What is handed out; None while no suite uses the lab.
    """

    def __init__(self) -> None:
        self.lab: Supervisor | None = None
        self._waiting: Supervisor | None = None
        self._directory: Path | None = None

    def hand_out(self, *, port: int, within: timedelta) -> Supervisor:
        """Start the lab, or take the one that waits; it is as empty as a new one.

        Args:
            port: The TCP port of both Waldurs; 0 takes a free one.
            within: Give up after this time.

        Raises:
            LabError: The port is taken, or a process did not become ready; nothing is left running.
        """
        lab, self._waiting = self._waiting, None
        if lab is not None and not lab.serves(port):
            lab.stop()
            lab = None
        if lab is None:
            lab = Supervisor()
            lab.start_waldurs(port=port, ready_within=within)
        self.lab = lab
        return lab

    def take_back(self) -> None:
        """Empty the lab and keep it for the next suite; stop it when it does not answer any more."""
        self._remove_directory()
        lab, self.lab = self.lab, None
        if lab is None:
            return
        try:
            lab.renew()
        except UserError:
            lab.stop()
        else:
            self._waiting = lab

    def stop(self) -> None:
        """End every process."""
        for lab in (self.lab, self._waiting):
            if lab is not None:
                lab.stop()
        self.lab = self._waiting = None
        self._remove_directory()

    def directory(self) -> Path:
        """A directory for what must not outlive the suite; only this user can read it."""
        if self._directory is None:
            remove_stale_directories()
            directory = private_path()
            directory.mkdir(mode=0o700)
            self._directory = directory
        return self._directory

    def _remove_directory(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
