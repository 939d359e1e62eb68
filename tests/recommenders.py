"""Events of users who go round a ring of items: what comes next is the item after the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import write_csv

TASK: dict[str, Any] = {
    "_target_": "finespun.tasks.ranking.item_recommendation.ItemRecommendation", "item_vectors": "text", "width": 16,
    "layers": 1, "heads": 2, "dropout": 0.0, "max_history": 8, "leave_out_seen": False, "candidates": 10,
    "monitor": "val/ndcg_at_10", "monitor_mode": "max",
}  # fmt: skip
EVENTS: dict[str, Any] = {"user": "who", "item": "what", "time": "when"}
ITEMS: dict[str, Any] = {"path": "items.csv", "columns": {"item": "id", "text": ["title", "kind"]}}
NAMES = ["film", "book", "song", "game", "play", "poem", "tale", "show", "dance", "picture"]


def events(users: int = 40, items: int = 10, length: int = 9) -> list[dict[str, Any]]:
    """Rows of events, those of users mixed."""
    return [
        {"who": f"u{user}", "what": f"i{(3 * user + step) % items}", "when": 1000 * step + user}
        for step in range(length)
        for user in range(users)
    ]


def catalogue(items: int = 10) -> list[dict[str, str]]:
    return [{"id": f"i{number}", "title": f"a good {NAMES[number % 10]}", "kind": "new"} for number in range(items)]


def written(folder: Path, rows: list[dict[str, Any]] | None = None, known: list[dict[str, str]] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "rows.csv", rows or events())
    write_csv(folder / "items.csv", known or catalogue())


def data(**changes: Any) -> dict[str, Any]:
    return {"path": "rows.csv", "events": EVENTS, "items": ITEMS, **changes}
