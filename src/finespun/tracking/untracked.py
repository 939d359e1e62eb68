"""A run that MLflow never hears of: `runtime.tracking: false`."""

from __future__ import annotations

from typing import Any

from finespun.tracking.client import Run


class Untracked(Run):
    """Takes whatever a run takes, and keeps nothing."""

    def __init__(self) -> None:
        self.id = ""
        self.outbox: Any = _Nowhere()

    def __exit__(self, *_: object) -> None:
        """Nothing is left to deliver."""

    def log_texts(self, texts: Any, to: str = "") -> None:
        """Drops them."""

    def tag(self, name: str) -> str | None:
        return None

    def test_evaluations(self, test_digest: str) -> int | None:
        return None


class _Nowhere:
    recorded: dict[str, set[int]] = {}  # noqa: RUF012  (nothing is ever added)

    def add(self, kind: str, content: Any) -> None:
        """Drops it."""
