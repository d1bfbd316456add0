"""Defects around the agent as a daemon, and Waldurs that do not answer."""

from __future__ import annotations

from testyard.lab.sabotage.defect import Defect

DAEMON_DEFECTS: tuple[Defect, ...] = ()
