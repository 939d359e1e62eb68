"""A tag for each word as a task's answer: entities that tags spell, or tags that mean themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from finespun.errors import listed
from finespun.tasks.answers import tag_schemes as tagging
from finespun.tasks.answers.several_labels import NONE
from finespun.tasks.answers.tag_schemes import Entity, Scheme
from finespun.tasks.base import Defaults, Judgement, Outputs, Role
from finespun.tasks.inputs.text import pad
from finespun.tasks.metrics.scores import tagging_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection

IGNORED = -100  # transformers' word for a token without a target; losses and scores skip it


class Answered(NamedTuple):
    """A document of prepared data and what the model says of its words: probabilities (words, labels)."""

    row: Mapping[str, Any]
    words: list[str]
    chances: NDArray[np.float64]


class WordTags(Defaults):
    """Entities in a scheme (BIO, BIOES, IO), or plain tags such as parts of speech."""

    answer_roles: ClassVar[Mapping[str, Role]] = {"tags": Role(lists=True)}

    scheme: Scheme
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    monitor: Literal["val/f1", "val/precision", "val/recall", "val/f1_macro", "val/accuracy", "val/loss"]
    monitor_mode: Literal["max", "min"]

    @model_validator(mode="after")
    def _is_watched(self) -> Self:
        if self.monitor not in {"val/loss", *(f"val/{name}" for name in self._watched)}:
            raise ValueError(
                f"scheme {self.scheme} has no {self.monitor}; monitor val/ and one of {listed(self._watched)}, loss"
            )
        return self

    @property
    def _plain(self) -> bool:
        return self.scheme == "plain"

    @property
    def _watched(self) -> tuple[str, ...]:
        return ("accuracy", "f1_macro") if self._plain else ("f1", "precision", "recall", "f1_macro", "accuracy")

    @property
    def headline(self) -> tuple[str, ...]:
        return self._watched if self._plain else ("f1", "precision", "recall", "accuracy")

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns no inputs; for each token the position of its word's label or IGNORED, (rows, longest)."""
        return {}, pad(columns["target"], IGNORED)[0] if "target" in columns else None

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Returns the mean over the words of each row; 0 for a row without any."""
        from torch.nn import functional  # noqa: PLC0415

        smoothing = self.label_smoothing if training else 0.0
        losses = functional.cross_entropy(
            logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
        )
        return _mean_of_words(losses, targets)

    def divergence(self, logits: torch.Tensor, others: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return _mean_of_words(super().divergence(logits, others, targets) * (targets != IGNORED), targets)

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        import torch  # noqa: PLC0415

        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        def counted(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows = zip(targets.cpu().numpy(), logits.argmax(dim=2).cpu().numpy(), strict=True)
            nothing = np.zeros((5, len(self._types(labels))), np.int64), np.zeros(2, np.int64)
            pairs = zip(nothing, *(self._count(*row, labels) for row in rows), strict=True)
            counts, words = (torch.from_numpy(np.sum(each, axis=0, keepdims=True)).to(targets.device) for each in pairs)
            return counts, words

        return over_batches(self._watched, counted, partial(self.scores, labels=labels))

    def _types(self, labels: Sequence[str]) -> list[str]:
        return list(labels) if self._plain else sorted({tagging.parted(label)[1] for label in labels[1:]})

    def _spelt(self, tags: Sequence[str], *, strictly: bool = False) -> list[Entity]:
        if self._plain:
            return [(tag, position, position + 1) for position, tag in enumerate(tags)]
        return tagging.faultless(tags, self.scheme) if strictly else tagging.entities(tags)

    def _count(
        self, actual: NDArray[np.int64], found: NDArray[np.int64], labels: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns what `tagging_scores` needs of one sequence of labels."""
        known = actual != IGNORED
        pairs = [[labels[position] for position in each[known]] for each in (actual, found)]
        right = {*self._spelt(pairs[0])}
        lenient, strict = ({*self._spelt(pairs[1], strictly=strictly)} for strictly in (False, True))
        types = self._types(labels)
        counted = [Counter(kind for kind, _, _ in each) for each in (lenient & right, lenient, right, strict & right, strict)]
        counts = np.array([[each[kind] for kind in types] for each in counted], dtype=np.int64)
        return counts.reshape(5, len(types)), np.array([(actual == found).sum(), known.sum()], dtype=np.int64)

    def scores(self, counts: Any, words: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return tagging_scores(counts, words, weights, types=self._types(labels), plain=self._plain)

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `entities` with their characters, for given words (joined by spaces) `tags` too; `top_k` changes nothing.

        For plain tags: `words`, `tags` and their `probabilities`.
        """
        found: list[dict[str, Any]] = []
        for each in _answered(rows, outputs):
            tags = [labels[best] for best in each.chances.argmax(axis=1)]
            if self._plain:
                chances = [round(float(chance), 6) for chance in each.chances.max(axis=1)]
                found.append({"words": each.words, "tags": tags, "probabilities": chances})
            else:
                answer = {"entities": _shown(each.row, self._spelt(tags), each.chances.max(axis=1))}
                found.append(answer | ({"tags": tags} if each.row["listed"] else {}))
        return found

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        import pyarrow as pa  # noqa: PLC0415

        table: dict[str, list[Any]] = defaultdict(list)
        counts, words, pairs = [], [], []
        for each in _answered(rows, outputs):
            best, actual = each.chances.argmax(axis=1), np.asarray(each.row["tags"], dtype=np.int64)
            counted, right = self._count(actual, best, labels)
            counts.append(counted)
            words.append(right)
            tags = [[labels[position] if position >= 0 else NONE for position in array] for array in (actual, best)]
            pairs += self._pairs(*tags)
            whole = {name: each.row[name] for name in ("row", "text")}
            for name, value in (whole | {"words": each.words, "tags": tags[0], "predicted": tags[1]}).items():
                table[name].append(value)
        lists = {name: pa.array(table[name], pa.list_(pa.string())) for name in ("words", "tags", "predicted")}
        pairs = pairs or [(NONE, NONE)]
        return Judgement(
            units=len(counts), scores=partial(self.scores, np.stack(counts), np.stack(words), labels=labels),
            table=table | lists, actual=[a for a, _ in pairs], predicted=[p for _, p in pairs],
            without_rows=[kind for kind, rows in zip(self._types(labels), np.sum(counts, axis=0)[2], strict=True) if not rows],
            classes=[*self._types(labels), *([NONE] if any(NONE in pair for pair in pairs) else [])],
        )  # fmt: skip

    def _pairs(self, actual: Sequence[str], predicted: Sequence[str]) -> list[tuple[str, str]]:
        """Returns types of what is there and what was found in the same words; `NONE` for nothing."""
        there, found = ({(start, end): kind for kind, start, end in self._spelt(tags)} for tags in (actual, predicted))
        return [(there.get(place, NONE), found.get(place, NONE)) for place in sorted(there.keys() | found.keys())]

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        seen: dict[str, Counter[int]] = defaultdict(Counter)
        for row in _documents(train):
            for word, target in zip(strings(row), row["tags"], strict=True):
                seen[word].update([target] if target != IGNORED else [])
        total: Counter[int] = sum(seen.values(), Counter())
        most = max(total, key=lambda label: total[label])
        usual = {word: counts.most_common(1)[0][0] for word, counts in seen.items() if counts}
        words = [word for row in _documents(split) for word in strings(row)]
        told = {"most_frequent_tag": [most] * len(words), "usual_tag_of_word": [usual.get(word, most) for word in words]}
        return {name: _certain(answers, split, len(labels)) for name, answers in told.items()}


def _mean_of_words(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return values.sum(dim=1) / (targets != IGNORED).sum(dim=1).clamp(min=1)


def _documents(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Yields the first row of each document: the one that has its text."""
    names = [name for name in ("row", "text", "words", "listed", "tags") if name in rows.column_names]
    for batch in rows.select(names).to_batches():
        yield from (row for row in batch.to_pylist() if row["text"] is not None)


def strings(row: Mapping[str, Any]) -> list[str]:
    """Returns the words of a document of prepared data."""
    return [row["text"][start:end] for start, end in zip(row["words"][::2], row["words"][1::2], strict=True)]


def _answered(rows: pa.Table, outputs: Outputs) -> Iterator[Answered]:
    """Yields documents with the answers of all their windows; a word without a token has probabilities of 0."""
    places = rows["places"].to_numpy()
    begins = np.flatnonzero(rows["text"].is_valid().to_numpy())
    ends = [*begins[1:], rows.num_rows]
    for row, begin, end in zip(_documents(rows), begins, ends, strict=True):
        parts = []
        for number in range(begin, end):
            at = np.asarray(places[number], dtype=np.int64)
            parts.append(np.where(at[:, None] < 0, 0.0, outputs[number][at]))
        yield Answered(row, strings(row), np.concatenate(parts))


def _shown(row: Mapping[str, Any], found: Iterable[Entity], chances: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Returns entities as a person reads them; `score` is the mean probability of their words' tags."""
    words, shown = row["words"], []
    for kind, first, last in found:
        start, end = words[2 * first], words[2 * last - 1]
        score = round(float(chances[first:last].mean()), 6)
        shown.append({"text": row["text"][start:end], "label": kind, "start": start, "end": end, "score": score})
    return shown


def _certain(answers: Sequence[int], rows: pa.Table, labels: int) -> list[NDArray[np.float64]]:
    """Returns outputs of windows that answer their words, all together, so."""
    told, outputs = iter(answers), []
    for places, length in zip(rows["places"].to_pylist(), rows["length"].to_pylist(), strict=True):
        found = np.zeros((length, labels))
        for place, answer in zip(places, told, strict=False):
            if place >= 0:
                found[place, answer] = 1.0
        outputs.append(found)
    return outputs
