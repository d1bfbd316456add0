"""Defects around usernames and their events (document 001)."""

from __future__ import annotations

from testyard.lab.sabotage.defect import Defect

USERNAME_DEFECTS: tuple[Defect, ...] = ()
