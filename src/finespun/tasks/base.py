"""The Task protocol: how rows become inputs, how logits become a loss, metrics and predictions that a person reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from finespun.config.sections import Floats, Section

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection

Values = Mapping[str, Any]  # role -> what a row says: a text, or a list of texts
Columns = dict[str, "pa.Array"]
Outputs = Sequence[NDArray[np.float64]]  # one array a row of prepared data
Problem = tuple[str, str, str]  # a field of `data.checks`, a role, what to do
Encoder = Any  # what a task needs of a checkpoint to make columns of rows and tensors of columns; the task alone knows it


class Role(NamedTuple):
    """What a task makes of a column of the user's data."""

    needed: bool = True
    lists: bool = False  # its values may be lists
    indicators: bool = False  # several columns of 0 and 1 may make it up
    verbatim: bool = False  # a text that is kept as it stands, whatever it looks like


class Batch(NamedTuple):
    """What one forward pass is given.

    `inputs` are the model's keyword arguments, (rows, ...) each; `targets` (rows, ...); `weights` (rows,) is what each row
    counts in the gradient of its optimizer step: its share of all that the step's loss is a mean over (`Task.counts`: rows,
    or tokens, on all devices), times its label's weight, and where nothing trains its count alone; the first `counted` rows
    count, the rest (a row that keeps a device busy in a short last step) weigh nothing; `rows` are positions in the split.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor
    counted: int

    def those_that_count(self) -> Batch:
        """Returns the first `counted` rows, (counted, ...) each."""
        inputs, targets, rows, weights = (first_rows(part, self.counted) for part in self[:4])
        return Batch(inputs, targets, rows, weights, self.counted)

    def to(self, device: torch.device) -> Batch:
        """Returns the same on a device; a GPU of CUDA's takes pinned memory without being waited for (Apple's may not)."""
        free = device.type == "cuda"
        inputs = {name: tensor.to(device, non_blocking=free) for name, tensor in self.inputs.items()}
        targets, rows, weights = (part.to(device, non_blocking=free) for part in (self.targets, self.rows, self.weights))
        return Batch(inputs, targets, rows, weights, self.counted)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a task says of outputs whose answers are known.

    `scores` is given weights (resamples, units), how often each unit is counted, and returns name -> (resamples,): all ones
    give the plain value, the counts of a bootstrap sample that sample's. A unit is a row, or a document that was cut up.
    `table` has a value a unit: what a person reads. `actual` and `predicted` are pairs for a picture: names of `classes`, or
    numbers where there are none. `without_rows` are labels that no row of the split has; `constant`, targets that are the same
    number in all of them.
    """

    units: int
    scores: Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]
    table: dict[str, Any]
    actual: Sequence[Any]
    predicted: Sequence[Any]
    classes: Sequence[str] = ()
    without_rows: Sequence[str] = ()
    constant: Sequence[str] = ()


class TargetScale(Section):
    """Mean and deviation of each number that is predicted: a model is trained on numbers from which they were taken out."""

    mean: Floats
    deviation: Floats


class Miner(Protocol):
    """Chooses, before each epoch, what is hard for the model: on all ranks at once, and the same on any number of them."""

    epoch: int  # for which it has chosen; -1: none

    def mine(self, model: Any, *, epoch: int, progressed: Callable[[], None]) -> None:
        """Chooses by the model as it is, which is left in eval mode; `progressed` is called after each part of the work."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: inside an epoch the model is no longer the one that chose."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with what was chosen before a run was cut short."""


class Task(Protocol):
    """One kind of task. A task is given plain options, checks them itself, and knows no trainer."""

    input_roles: Mapping[str, Role]  # columns of the user's data that the model reads, the most important first
    answer_roles: Mapping[str, Role]  # those that hold the answer: not there when predicting
    item_roles: tuple[str, ...]  # columns of `data.items`, where it `ranks`
    model_columns: tuple[str, ...]  # columns of prepared data that a batch is made of, beside `target`
    headline: tuple[str, ...]  # the scores that a summary shows
    monitor: str  # the validation metric that decides early stopping and the best epoch
    monitor_mode: str
    auto_class: str  # the Auto class of transformers that holds the model
    processor: str  # the Auto class of what is saved beside it
    cannot_keep: tuple[str, ...]  # fields of `data.checks` whose rows it cannot learn from: `warn` is refused
    decides: bool  # whether `decide` chooses anything
    from_logits: bool  # loss and outputs are functions of logits: frozen parts may be replayed, a head trained alone
    deterministic: bool  # a row's inputs are the same in each epoch: what a frozen part makes of them may be kept
    whole_steps: bool  # a row's loss depends on the others of its optimizer step, which is computed as one (`in_passes`)
    several_answers: bool  # rows of the same content may have different answers, and stay in one split
    answers_untrained: bool  # the pretrained model, as it comes, has answers too: a baseline
    ranks: bool  # its answers are items of a catalogue, which is prepared beside the rows and kept beside the model
    rows_at_once: int  # as many are encoded, written and answered together: what memory is asked to hold
    unit: str  # what `length` counts
    dtype: str  # what weights are held in while a trained model predicts rows
    miner: Miner | None  # what `with_miner` has set

    def reading_from(self, *folders: Path, inside: Sequence[Path] | None = None) -> Self:
        """The task for rows that name files, relative to the first of these folders that has them.

        Only files inside `inside` (by default `folders`) are read, wherever a path or a link leads.
        """

    def kept_within(self, most_bytes: float, rows: int, encoder: Any) -> tuple[Self, str | None]:
        """The task for so many rows, and what is to be said of it: what would take more bytes may stay in the rows' files."""

    def files(self, values: Values) -> Iterator[Path]:
        """Yields the files that a row names: they are read, too."""

    def content(self, values: Values) -> str:
        """What makes two rows the same row."""

    def answers(self, values: Values) -> Sequence[str]:
        """The labels that a row gives."""

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        """Yields everything wrong with one row; of answers only if there are any."""

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        """What the model's outputs are called, given the labels in their order and the columns by role."""

    def fitted(self, train: pa.Table, labels: Sequence[str]) -> Self:
        """The task with what it takes from the answers of the training split: the scale of numbers.

        Raises:
            DataError: there is nothing to learn in them.
        """

    def scale(self) -> TargetScale | None:
        """What `fitted` found, or `settled` read; None where logits are what they are."""

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        """Yields what is odd about the answers of a whole split: printed, and kept in the profile."""

    def encoder(self, folder: Path) -> Encoder:
        """Reads what encoding needs from a checkpoint's folder, without torch.

        Raises:
            ModelError: it is not there, or cannot be read.
        """

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Turns rows into columns; `length` and `truncated` are among them, `target` where `labels` are given.

        A row may become several; then a column `source` says which row each one is of.
        """

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Turns columns of some rows into the model's inputs and, where they have any, the targets."""

    def augment(self, batch: Batch, encoder: Any, *, epoch: int, seed: int) -> Batch:
        """Returns a batch, on its device, with inputs changed at random for training, and targets with them.

        A function of (seed, epoch, row) alone.
        """

    def with_miner(self, train: pa.Table, encoder: Encoder) -> Self:
        """The task that, in `augment`, adds to each row of training what its `miner` chose; the same where it mines nothing.

        Raises:
            ConfigError: there is not enough to choose from.
        """

    def counts(self, table: pa.Table) -> NDArray[np.float64] | None:
        """Returns how many of the things that the loss is a mean over each row of prepared data has, (rows,): tokens, boxes.

        None: the loss is a mean over rows.
        """

    def in_passes(self, passes: int) -> Self:
        """The task that computes a whole step in so many passes itself; for those that want `whole_steps`."""

    def items(self, splits: Sequence[pa.Table], more: Iterable[Values], encoder: Any, labels: Sequence[str]) -> pa.Table:
        """The items of prepared splits and of the rows of `data.items`, where it `ranks`; the column `item` names them.

        Raises:
            DataError: they are none that can be ranked.
        """

    def built(self, model: Any, encoder: Any, items: pa.Table) -> Any:
        """Returns the model that is trained, where it `ranks`: the pretrained one, or one that is made of it and the items."""

    def of_items(self) -> Self:
        """The task whose inputs are items and whose outputs are their vectors, where it `ranks`."""

    def with_items(self, items: pa.Table, vectors: Outputs) -> Self:
        """The task that ranks these items by these vectors."""

    def write_beside(self, folder: Path) -> None:
        """Writes into a model's folder what is needed beside weights and processor: the items, how vectors are pooled."""

    def processor_options(self, encoder: Any) -> dict[str, Any]:
        """Changes to the processor that is saved beside the model."""

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the user's row said, by role, without the answer, from a row of prepared data."""

    def for_processor(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """How transformers' own processor would be called for a row of prepared data, to give the same inputs."""

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        """Changes to the model's configuration."""

    def scaled(self, targets: torch.Tensor) -> torch.Tensor:
        """Returns targets as logits should come out: numbers without their mean, in deviations."""

    def forward(self, model: Any, batch: Batch) -> Any:
        """Runs the model on a batch whose targets are known: for `losses`, and, with the targets, for the metrics' `update`.

        Returns:
            A tensor (rows, ...), such as logits, or a tuple or dict of them.
        """

    def losses(self, output: Any, batch: Batch, *, training: bool = False) -> torch.Tensor:
        """Returns the mean loss of each row, shape (rows,), of what `forward` returned; regularised only in training.

        A model that computes one loss of all rows gives it to each of them.
        """

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        """Runs the model on inputs alone, and returns what is kept of each row: large outputs are reduced here."""

    def evaluate(self, model: Any, batch: Batch) -> Outputs:
        """Runs the model on a batch that will be judged: `predict`, and what can be said where targets are known."""

    def equip(self, model: Any, encoder: Any, folder: Path) -> None:
        """Writes into a pretrained model what is saved beside its weights: how it generates.

        Raises:
            ModelError: the model cannot do what the task's options ask for.
        """

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Returns the loss of each row, shape (rows,), where `from_logits`; regularised (label smoothing) only in training."""

    def divergence(self, logits: torch.Tensor, others: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns how far two answers to each row are apart, shape (rows,), where `from_logits`; 0 where they are the same."""

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        """The metrics of validation, without their prefix."""

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """What is kept of a batch's logits: probabilities or numbers, (rows, ...)."""

    def decide(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> dict[str, Any]:
        """What is chosen on the validation split (a threshold); kept in the model's configuration."""

    def settled(self, config: Mapping[str, Any]) -> Self:
        """The task with what `decide` once chose, and the scale of its logits, from the model's configuration."""

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """What a person reads of each row that was asked for (`rows` may hold several of one `row`), the likeliest first."""

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        """Everything to be reported of outputs for rows of prepared data."""

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        """Outputs of simple methods, fitted on `train`, for the rows of `split`."""


class Defaults(Section):
    """What most tasks answer alike.

    In `problems`, `encode` and `collate` an input and an answer that are mixed together each add their part to `super()`'s.
    """

    item_roles: ClassVar[tuple[str, ...]] = ()
    cannot_keep: ClassVar[tuple[str, ...]] = ()
    from_logits: ClassVar[bool] = True
    whole_steps: ClassVar[bool] = False
    several_answers: ClassVar[bool] = False
    answers_untrained: ClassVar[bool] = False
    rows_at_once: ClassVar[int] = 4096
    unit: ClassVar[str] = "tokens"
    dtype: ClassVar[str] = "float32"

    problem_type: ClassVar[str | None] = None  # transformers' name for the kind of loss

    @property
    def decides(self) -> bool:
        return False

    @property
    def deterministic(self) -> bool:
        return True

    @property
    def ranks(self) -> bool:
        return False

    @property
    def miner(self) -> Miner | None:
        return None

    def reading_from(self, *folders: Path, inside: Sequence[Path] | None = None) -> Self:
        return self

    def kept_within(self, most_bytes: float, rows: int, encoder: Any) -> tuple[Self, str | None]:
        return self, None

    def files(self, values: Values) -> Iterator[Path]:
        return iter(())

    def in_passes(self, passes: int) -> Self:
        raise NotImplementedError  # of a task whose rows' losses are their own

    def items(self, splits: Sequence[pa.Table], more: Iterable[Values], encoder: Any, labels: Sequence[str]) -> pa.Table:
        raise NotImplementedError  # of a task that ranks nothing

    def built(self, model: Any, encoder: Any, items: pa.Table) -> Any:
        return model

    def of_items(self) -> Self:
        raise NotImplementedError

    def with_items(self, items: pa.Table, vectors: Outputs) -> Self:
        raise NotImplementedError

    def write_beside(self, folder: Path) -> None:
        return

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        return list(found)

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        return iter(())

    def fitted(self, train: pa.Table, labels: Sequence[str]) -> Self:
        return self

    def scale(self) -> TargetScale | None:
        return None

    def scaled(self, targets: torch.Tensor) -> torch.Tensor:
        return targets

    def remarks(self, rows: pa.Table, labels: Sequence[str]) -> Iterator[str]:
        return iter(())

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        return {}

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns no inputs; targets as they stand, (rows, ...), numbers in single precision."""
        import torch  # noqa: PLC0415  (prepare encodes with these classes and imports no torch)

        if "target" not in columns:
            return {}, None
        targets = torch.as_tensor(np.array([*columns["target"]]))
        return {}, targets.float() if targets.is_floating_point() else targets

    def augment(self, batch: Batch, encoder: Any, *, epoch: int, seed: int) -> Batch:
        return batch

    def with_miner(self, train: pa.Table, encoder: Encoder) -> Self:
        return self

    def counts(self, table: pa.Table) -> NDArray[np.float64] | None:
        return None

    def forward(self, model: Any, batch: Batch) -> Any:
        return model(**batch.inputs).logits

    def losses(self, output: Any, batch: Batch, *, training: bool = False) -> torch.Tensor:
        return self.loss(output, batch.targets, training=training)

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        return [*self.outputs(model(**inputs).logits.float().cpu().numpy())]

    def evaluate(self, model: Any, batch: Batch) -> Outputs:
        return self.predict(model, batch.inputs)

    def equip(self, model: Any, encoder: Any, folder: Path) -> None:
        return

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        raise NotImplementedError  # of a task whose loss is its model's own

    def processor_options(self, encoder: Any) -> dict[str, Any]:
        return {}

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: position for position, label in enumerate(labels)},
            "problem_type": self.problem_type,
        }

    @abstractmethod
    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Returns name -> (resamples,) for weights (resamples, rows): what `metrics` and `judge` report."""

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        """The scores that may be monitored, over all rows at once."""
        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        monitored = [name.removeprefix("val/") for name in get_args(type(self).model_fields["monitor"].annotation)]
        return over_batches(
            [name for name in monitored if name != "loss"],
            lambda logits, targets: (targets, logits.float()),
            lambda targets, logits, weights: self.scores(targets, self.outputs(logits), weights, labels),
        )

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return softmax(logits)

    @abstractmethod
    def given(self, row: Mapping[str, Any]) -> dict[str, Any]: ...

    def for_processor(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return self.given(row)

    def divergence(self, logits: torch.Tensor, others: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean of both directions' Kullback-Leibler divergence of distributions over the last dimension."""
        one, other = logits.float().log_softmax(-1), others.float().log_softmax(-1)
        return ((one.exp() - other.exp()) * (one - other)).sum(-1) / 2

    def decide(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> dict[str, Any]:
        return {}

    def settled(self, config: Mapping[str, Any]) -> Self:
        return self


def roles_of(task: Task) -> dict[str, Role]:
    """Returns the roles of a task, those that the model reads first."""
    return {**task.input_roles, **task.answer_roles}


def main_role(task: Task) -> str:
    """Returns the role that the model reads first: what a row is called by where it needs a name."""
    return next(iter(task.input_roles))


def first_rows(output: Any, count: int) -> Any:
    """Returns the first rows of a tensor, or of all tensors of a tuple or dict."""
    if isinstance(output, Mapping):
        return {name: first_rows(part, count) for name, part in output.items()}
    if isinstance(output, tuple):
        parts = [first_rows(part, count) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    return output[:count]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns probabilities over the last axis, in double precision."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
