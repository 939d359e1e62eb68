"""What the tokenizer makes of the texts: how much the model's window cuts off, and how much is unknown to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finespun.config.sections import DataConfig
from finespun.data.check_report import Report
from finespun.tasks.base import Encoder, Task, main_role

if TYPE_CHECKING:
    from finespun.data.dataset_checks.examine import Sampled

MOST = 2_000  # rows
CUT_OFF = 0.05  # share of tokens
UNKNOWN = 0.01  # share of tokens


def check(sample: Sequence[Sampled], data: DataConfig, task: Task, encoder: Encoder | None, report: Report) -> None:
    """Adds what is remarkable about the tokens of the sample."""
    tokenizer, longest = getattr(encoder, "tokenizer", None), getattr(task, "max_length", None)
    if tokenizer is None or longest is None or main_role(task) != "text":
        return
    texts = [task.content(each.values) for each in sample[:MOST]]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    lengths = np.array([len(one) for one in ids])
    _check_length(lengths, longest, data, task, report)
    unknown = _unknown_id(tokenizer)
    share = sum(one.count(unknown) for one in ids) / max(1, int(lengths.sum())) if unknown is not None else 0.0
    if share >= UNKNOWN:
        report.say(
            "unknown_tokens",
            data.checks.unknown_tokens,
            f"{share:.0%} of the tokens of {len(ids):,} rows are unknown to the model's tokenizer: it may not know the"
            " language or the signs; take a model that does, such as a multilingual one",
        )


def _check_length(lengths: Any, longest: int, data: DataConfig, task: Task, report: Report) -> None:
    if hasattr(task, "stride"):
        return  # long texts become windows, and nothing is cut off
    lost = np.maximum(lengths - longest, 0).sum() / lengths.sum()
    if lost >= CUT_OFF:
        rows = float(np.mean(lengths > longest))
        enough = int(np.ceil(np.percentile(lengths, 95) / 32) * 32)
        report.say(
            "cut_off",
            data.checks.cut_off,
            f"task.max_length: {longest} cuts off {lost:.0%} of all tokens, in {rows:.0%} of the rows; {enough} would hold"
            " 95 % of the rows whole, where the model allows it",
        )


def _unknown_id(tokenizer: Any) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    token = model.get("unk_token")
    if isinstance(token, str):
        return int(tokenizer.token_to_id(token)) if tokenizer.token_to_id(token) is not None else None
    return model.get("unk_id") if isinstance(model.get("unk_id"), int) else None
