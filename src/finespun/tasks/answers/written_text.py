"""A text as a task's answer: its tokens are the targets, and outputs are generated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from finespun.config.sections import Section
from finespun.data.cells import is_blank
from finespun.tasks.base import Batch, Columns, Defaults, Judgement, Outputs, Problem, Role, Values
from finespun.tasks.inputs.prompts import PromptEncoder
from finespun.tasks.inputs.text import pad
from finespun.tasks.metrics.writing import Written, writing_scores, written

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection

Score = Literal["rouge1", "rouge2", "rougeL", "bleu", "chrf", "exact_match"]
IGNORED = -100  # transformers' word for a token without a target
LEADS, ROWS_FOR_LEAD = (1, 0.5, 1.5, 2, 2.5, 3), 200  # lengths of a lead, in those of a target; rows that the best is found on
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "max_length")  # of a checkpoint's own settings: not used


class Generation(Section):
    """How texts are generated, always the same for the same row; saved as generation_config.json."""

    max_new_tokens: PositiveInt
    num_beams: PositiveInt  # 1: greedy
    length_penalty: float  # above 0, beams favour longer texts
    no_repeat_ngram_size: NonNegativeInt  # 0: n-grams may be repeated
    repetition_penalty: PositiveFloat  # 1: none

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        if self.num_beams == 1 and self.length_penalty != 1:
            raise ValueError("length_penalty is for beams, and num_beams is 1; set num_beams: 4, or length_penalty: 1.0")
        return self


class WrittenText(Defaults):
    """Learns to write `target` after a prompt; losses are means over its tokens, the one that ends it among them.

    Outputs are one array a row: the sum of the target's losses (NaN where it is not known), then the generated tokens.
    """

    answer_roles: ClassVar[Mapping[str, Role]] = {"target": Role(verbatim=True)}
    from_logits: ClassVar[bool] = False
    rows_at_once: ClassVar[int] = 256  # a killed `finespun predict` loses no more

    max_target_length: PositiveInt
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    generation: Generation
    headline: Annotated[tuple[Score, ...], Field(strict=False, min_length=1)]
    monitor: Literal["val/loss", "val/token_accuracy", "val/perplexity"]
    monitor_mode: Literal["max", "min"]

    if TYPE_CHECKING:  # of the input that it is mixed with, which comes after it
        input_roles: Mapping[str, Role]

        @property
        def reader(self) -> PromptEncoder:
            """What turns tokens into texts."""

        def sources(self, table: pa.Table) -> list[str]:
            """Returns what the rows of prepared data say to the model, as texts."""

    def answers(self, values: Values) -> Sequence[str]:
        return ()

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        return [str(columns["target"])]

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from super().problems(values, labels)
        if "target" in values and is_blank(values["target"]):
            yield "empty_text", "target", "is empty; write the text that is to be learnt, or set data.checks.empty_text: drop"

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        count = rows.num_rows
        cut = sum(rows["cut"].to_pylist())
        if cut:
            yield (
                f"{cut:,} of {count:,} targets ({cut / count:.1%}) are longer than task.max_target_length"
                f" ({self.max_target_length} tokens): their ends are not learnt; raise it"
            )
        longer = sum(len(ids) > self.generation.max_new_tokens for ids in rows["target"].to_pylist())
        if longer:
            yield (
                f"{longer:,} of {count:,} targets ({longer / count:.1%}) are longer than"
                f" task.generation.max_new_tokens ({self.generation.max_new_tokens}): no output can be as long; raise it"
            )
        pairs = zip(self.sources(rows), rows["reference"].to_pylist(), strict=True)
        copied = sum(_plain(source) == _plain(target) for source, target in pairs)
        if copied:
            yield f"{copied:,} of {count:,} targets ({copied / count:.1%}) are copies of their source; are they answers?"

    def encode(self, rows: Sequence[Values], encoder: PromptEncoder, labels: Sequence[str] | None) -> Columns:
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)
        import pyarrow.compute as pc  # noqa: PLC0415

        columns = super().encode(rows, encoder, labels)
        if labels is None:
            return columns
        whole = [self.target_ids(row, encoder) for row in rows]
        kept = [
            each if len(each) <= self.max_target_length else [*each[: self.max_target_length - 1], each[-1]] for each in whole
        ]
        columns["target"] = pa.array(kept, pa.list_(pa.int32()))
        columns["reference"] = pa.array([row["target"] for row in rows], pa.string())
        columns["cut"] = pa.array([len(each) > self.max_target_length for each in whole], pa.bool_())
        columns["length"] = pc.add(columns["length"], pa.array([len(each) for each in kept], pa.int32()))
        return columns

    def target_ids(self, values: Values, encoder: PromptEncoder) -> list[int]:
        """Returns the tokens to be written, the last of which ends the text."""
        return [*encoder.ids(values["target"], special=False), encoder.end]

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: PromptEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns the prompts, and the targets' tokens or IGNORED, (rows, longest)."""
        inputs = super().collate({name: each for name, each in columns.items() if name != "target"}, encoder)[0]
        return inputs, pad(columns["target"], IGNORED)[0] if "target" in columns else None

    def counts(self, table: pa.Table) -> NDArray[np.float64] | None:
        return _tokens(table)

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return {}

    def equip(self, model: Any, encoder: PromptEncoder, folder: Path) -> None:
        said = deepcopy(model.generation_config)
        for name in SAMPLING:
            setattr(said, name, None)
        said.update(do_sample=False, **self.generation.model_dump(), **self.special_tokens(model, encoder))
        model.generation_config = said

    def special_tokens(self, model: Any, encoder: PromptEncoder) -> dict[str, Any]:
        """Returns the tokens that generation begins, ends and pads with."""
        given = model.generation_config.eos_token_id
        known = given if isinstance(given, list) else [] if given is None else [given]
        ends = list(dict.fromkeys([encoder.end, *known]))
        return {"eos_token_id": ends if len(ends) > 1 else ends[0], "pad_token_id": encoder.pad_token_id}

    def losses(self, output: Any, batch: Batch, *, training: bool = False) -> torch.Tensor:
        losses: torch.Tensor = output["losses"]
        if training and self.label_smoothing:
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * output["uniform"]
        return losses.sum(dim=1) / (batch.targets != IGNORED).sum(dim=1).clamp(min=1)

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends])}
        found = self.continuation(model.generate(**inputs), inputs).tolist()
        return [np.array([np.nan, *_before(ids, ends)], dtype=np.float64) for ids in found]

    def continuation(self, generated: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns what was written, (rows, longest), without what it was given to begin with."""
        raise NotImplementedError

    def evaluate(self, model: Any, batch: Batch) -> Outputs:
        outputs = self.predict(model, batch.inputs)
        losses = self.forward(model, batch)["losses"].double().sum(dim=1).tolist()
        for output, loss in zip(outputs, losses, strict=True):
            output[0] = loss
        return outputs

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        import torch  # noqa: PLC0415

        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        def counted(output: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            sums = [output[name].double().sum(dim=1) for name in ("losses", "right")]
            return torch.stack(sums, dim=1), (targets != IGNORED).sum(dim=1)

        def score(sums: Any, tokens: Any, weights: Any) -> dict[str, NDArray[np.float64]]:
            loss, right = (weights @ sums / (weights @ tokens)[:, None]).T
            return {"token_accuracy": right, "perplexity": np.exp(np.minimum(loss, 80.0))}

        return over_batches(["token_accuracy", "perplexity"], counted, score)

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return writing_scores(outputs, weights)

    def texts(self, outputs: Outputs) -> list[str]:
        """Returns what outputs say."""
        return [self.reader.decode(output[1:].astype(np.int64).tolist()) for output in outputs]

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `generated_text`; `top_k` changes nothing."""
        return [{"generated_text": text} for text in self.texts(outputs)]

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        references, texts = rows["reference"].to_pylist(), self.texts(outputs)
        found: Written = written(references, texts, np.array([output[0] for output in outputs]), _tokens(rows))
        table: dict[str, Any] = {name: rows[name] for name in ("row", *self.input_roles) if name in rows.column_names}
        return Judgement(
            units=len(texts), scores=partial(writing_scores, found),
            table=table | {"target": references, "predicted": texts, "rougeL": found.rouge[:, 2]},
            actual=[float(len(text.split())) for text in references], predicted=[float(len(text.split())) for text in texts],
        )  # fmt: skip

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        """Returns the source's first words (as many as suit the training rows best), the source, the nearest row's target."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  (1.4 s that only reports need)

        seen, asked, targets = self.sources(train), self.sources(split), train["reference"].to_pylist()
        words = _best_lead(seen, targets)
        vectorizer = TfidfVectorizer(sublinear_tf=True)
        if not any(map(vectorizer.build_analyzer(), seen)):  # no word of two letters anywhere
            vectorizer.set_params(analyzer="char")
        vectors = vectorizer.fit_transform(seen)
        nearest = [int((vectors @ one.T).toarray().argmax()) for one in vectorizer.transform(asked)]
        told = {
            "lead": [" ".join(text.split()[:words]) for text in asked], "source": asked,
            "nearest_training_row": [targets[row] for row in nearest],
        }  # fmt: skip
        return {name: [self._as_output(text) for text in texts] for name, texts in told.items()}

    def _as_output(self, text: str) -> NDArray[np.float64]:
        return np.array([np.nan, *self.reader.ids(text, special=False)], dtype=np.float64)


def _best_lead(sources: Sequence[str], targets: Sequence[str]) -> int:
    """Returns how many first words of a source have the highest ROUGE-L on some training rows."""
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415  (only written answers need it)

    scorer, pairs = RougeScorer(["rougeL"]), list(zip(sources, targets, strict=True))[:ROWS_FOR_LEAD]
    middle = float(np.median([len(target.split()) for target in targets]))

    def mean(words: int) -> float:
        found = [scorer.score(target, " ".join(text.split()[:words]))["rougeL"].fmeasure for text, target in pairs]
        return float(np.mean(found))

    return max(dict.fromkeys(max(1, round(middle * times)) for times in LEADS), key=mean)


def _tokens(table: pa.Table) -> NDArray[np.float64]:
    """Returns the number of target tokens of each row, (rows,)."""
    import pyarrow.compute as pc  # noqa: PLC0415

    return np.asarray(pc.list_value_length(table["target"]).to_numpy(), dtype=np.float64)


def _before(ids: Sequence[int], ends: set[int]) -> list[int]:
    """Returns tokens up to the first that ends the text."""
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
