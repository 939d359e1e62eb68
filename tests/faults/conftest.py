"""Fixtures of the unit tests that these use too."""

from __future__ import annotations

from unit.conftest import prepared, train

__all__ = ["prepared", "train"]
