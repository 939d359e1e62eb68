"""The files that say what was proposed: `conf/data/NAME.yaml` with comments, and params.yaml with its own kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from finespun.config import reading
from finespun.data.cells import in_order
from finespun.data.proposal.files import Seen
from finespun.data.proposal.tasks import Reading
from finespun.errors import first_of

FEW_ROWS = 1_000  # fewer are divided evenly: a hash would leave a split without some label
MOST_LISTED = 20  # labels
ENOUGH_STEPS = 200  # of the optimizer: with fewer, what is fine-tuned has hardly left where it began (Mosbach et al., 2021)
SMALL_STEP, MOST_EPOCHS = 16, 20  # rows; both for few rows
TRAINED = 0.8  # share of rows
KEY = re.compile(r"^(?P<key>[\w-]+):[ \t]*(?P<value>[^#\n]*?)(?P<rest>[ \t]*(?:#.*)?)$", re.MULTILINE)


def data_file(path: str, seen: Seen, found: Reading) -> str:
    """Returns the text of `conf/data/NAME.yaml`."""
    lines = [f"# Written by `finespun init`: {seen.count:,} rows. How sure it is: {found.certainty}."]
    lines += [f"# - {reason}" for reason in found.reasons]
    lines += _path_lines(path, seen)
    for name, value in seen.settings.items():
        why = seen.reasons.get(name)
        lines.append(f"{name}: {_scalar(value)}" + (f" # {why}" if why else ""))
    lines.append("columns:")
    by_path = isinstance(seen.parts, dict)  # then reading adds the column of the split
    lines += [f"  {role}: {_scalar(column)}" for role, column in found.columns.items() if not (by_path and role == "split")]
    lines += [f"  # {other}" for other in found.alternatives]
    if found.labels and found.task.endswith(("_classification", "multi_label")) and found.task != "token_classification":
        names = in_order(found.labels)
        shown = ", ".join(json.dumps(name) if name.isdecimal() else _scalar(name) for name in names[:MOST_LISTED])
        if isinstance(found.columns.get("labels"), str) or "label" in found.columns:
            more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
            lines.append(f"# labels: [{shown}]{more} # listing them fixes their order, and makes others errors")
    lines += _split_lines(seen, found)
    return "\n".join(lines) + "\n"


def experiment_file(seen: Seen, *, epochs: int, batch_size: int) -> str | None:
    """Returns the text of `conf/experiment/NAME.yaml` where there are so few rows that such epochs make few steps."""
    rows = max(1, round(TRAINED * seen.count))
    if epochs * rows >= ENOUGH_STEPS * batch_size:
        return None
    small = min(SMALL_STEP, batch_size)
    more = max(epochs, min(MOST_EPOCHS, -(-ENOUGH_STEPS * small // rows)))
    return (
        "# @package _global_\n"
        f"# Written by `finespun init`: about {rows:,} training rows make {max(1, epochs * rows // batch_size)} steps in the\n"
        f"# {epochs} epochs of {batch_size} rows a step that conf/trainer/ has, too few to learn from.\n"
        f"trainer: {{max_epochs: {more}, batch_size: {small}}}\n"
    )


def _path_lines(path: str, seen: Seen) -> list[str]:
    if isinstance(seen.parts, dict):
        return ["path:", *(f"  {split}: {_scalar(f'{path}/{part}')}" for split, part in seen.parts.items())]
    return [f"path: {_scalar(f'{path}/{seen.parts}' if seen.parts else path)}"]


def _split_lines(seen: Seen, found: Reading) -> list[str]:
    if "split" in found.columns:
        return []
    labelled = bool({"label", "labels"} & {*found.columns})
    rarest = min(found.labels.values(), default=0) * seen.count / max(1, len(seen.rows))
    if labelled and (seen.count < FEW_ROWS or rarest < 50):
        return [
            "# few rows: each split gets its share of every label",
            "split: {by: stratified, train: 0.8, val: 0.1, test: 0.1, seed: 42}",
        ]
    return ["split: {train: 0.8, val: 0.1, test: 0.1, seed: 42}"]


def _scalar(value: Any) -> str:
    """Returns a value as YAML on one line; a word that other readers of YAML would take for something else is quoted."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[1-9]\d{0,5}", value):
        return value  # a column by its position
    plain = re.fullmatch(r"[A-Za-z_][\w./ -]*[\w./]|[A-Za-z_]", value) and yaml.safe_load(value) == value
    return value if plain and value.lower() not in reading.TRUE + reading.FALSE else json.dumps(value, ensure_ascii=False)


def set_dials(text: str, dials: Mapping[str, str]) -> str:
    """Returns params.yaml with other values for some keys: comments and all other lines stay as they are."""
    left = dict(dials)

    def changed(match: re.Match[str]) -> str:
        value = left.pop(match["key"], None)
        return match[0] if value is None else f"{match['key']}: {value}{match['rest']}"

    text = KEY.sub(changed, text)
    return text + "".join(f"{key}: {value}\n" for key, value in left.items())


def seen_lines(seen: Seen, found: Reading) -> list[str]:
    """Returns what was seen, for a terminal."""
    lines = [f"rows: {seen.count:,} ({seen.kind})"]
    lines += [f"{name}: {value!r}, {seen.reasons.get(name, 'found in the file')}" for name, value in seen.settings.items()]
    lines.append(f"task: {found.task} ({found.certainty})")
    for role, column in found.columns.items():
        lines.append(f"  {role}: {column if isinstance(column, str) else ', '.join(column)}")
    lines += [f"  because {reason}" for reason in found.reasons]
    if found.labels:
        counted = [f"{name} {count:,}" for name, count in found.labels.most_common()]
        share = "" if seen.count == len(seen.rows) else f" in {len(seen.rows):,} rows"
        lines.append(f"labels: {len(counted)}{share}: {first_of(counted)}")
    return lines
