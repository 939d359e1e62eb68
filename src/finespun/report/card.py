"""The model card: a README with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from finespun.report import words

if TYPE_CHECKING:
    from finespun.report.facts import SplitFacts

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
PIPELINES = {
    "SequenceClassification": "text-classification",
    "Seq2SeqLM": "text2text-generation",
    "CausalLM": "text-generation",
}
COUNTED = (
    "trainer.max_epochs",
    "trainer.batch_size",
    "optimizer._target_",
    "optimizer.lr",
    "scheduler._target_",
    "strategy._target_",
    "seed",
)


def render(record: Mapping[str, Any], schema: Mapping[str, Any], splits: Iterable[SplitFacts] = ()) -> str:
    """Returns the card of a model: what `run.json` says of it and, where they are there, its results.

    Args:
        record: `run.json`.
        schema: of the prepared data.
        splits: what was reported of them, the most honest first.
    """
    found = list(splits)
    environment = Environment(  # noqa: S701  (Markdown; what users wrote is escaped by `plain`)
        loader=PackageLoader("finespun.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"score": words.score_name, "method": words.method_name, "number": words.number, "plain": plain}
    return environment.get_template("model_card.md.j2").render(
        metadata=yaml.safe_dump(_metadata(record, schema, found), sort_keys=False, allow_unicode=True).strip(),
        record=record,
        schema=schema,
        splits=found,
        verdict=words.verdict(found[0].details, rows=found[0].rows, split=found[0].split) if found else "",
        settings=[(name, value) for name in COUNTED if (value := _setting(record, name)) is not None],
    )


def _metadata(record: Mapping[str, Any], schema: Mapping[str, Any], splits: list[SplitFacts]) -> dict[str, Any]:
    base = (record.get("settings", {}).get("model") or {}).get("checkpoint")
    pipeline = pipeline_tag(str(record.get("auto_class", "")))
    name = str(record.get("name") or schema["name"])
    found: dict[str, Any] = {"library_name": "transformers"}
    if pipeline:
        found["pipeline_tag"] = pipeline
    if base and HUB_NAME.fullmatch(str(base)) and not Path(base).is_dir():
        found["base_model"] = base
    found["tags"] = ["finespun", "generated_from_trainer"]
    results = [
        {
            "task": {"type": pipeline or "other"},
            "dataset": {"name": str(schema["name"]), "type": str(schema["name"]), "split": split.split},
            "metrics": [
                {"type": score, "name": words.score_name(score), "value": round(split.details["scores"][score]["value"], 6)}
                for score in split.details["shown"]
            ],
        }
        for split in splits
    ]
    if results:
        found["metrics"] = list(splits[0].details["shown"])
        found["model-index"] = [{"name": name, "results": results}]
    return found


def pipeline_tag(auto_class: str) -> str | None:
    """Returns the hub's name for what a model does, from its Auto class of transformers."""
    kind = auto_class.partition("For")[2]
    if not kind:
        return None
    return PIPELINES.get(kind) or re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower()


def _setting(record: Mapping[str, Any], name: str) -> Any:
    node: Any = record.get("settings", {})
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def plain(value: object) -> str:
    """Returns a text on one line, without what Markdown or HTML would read."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
