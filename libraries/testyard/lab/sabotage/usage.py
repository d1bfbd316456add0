"""Defects around orders that B refuses, stuck orders, long lists and usage reports."""

from __future__ import annotations

from testyard.lab.sabotage.defect import Defect

USAGE_DEFECTS: tuple[Defect, ...] = ()
