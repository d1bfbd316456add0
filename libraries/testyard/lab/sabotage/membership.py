"""Defects around members, identities and end dates."""

from __future__ import annotations

from testyard.lab.sabotage.defect import Defect

MEMBERSHIP_DEFECTS: tuple[Defect, ...] = ()
