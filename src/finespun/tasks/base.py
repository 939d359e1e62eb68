"""The Task protocol: how rows become inputs, how logits become a loss, metrics and predictions that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torchmetrics import MetricCollection

Columns = dict[str, "pa.Array"]


class Batch(NamedTuple):
    """What one forward pass is given.

    `inputs` are the model's keyword arguments, (rows, length) each; `targets` (rows,); `weights` (rows,) is what each row
    counts in the gradient of its optimizer step: the inverse of the step's number of rows on all devices, times its label's
    weight; the first `counted` rows count, the rest (a row that keeps a device busy in a short last step) weigh nothing;
    `rows` are positions in the split.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor
    counted: int


class Task(Protocol):
    """One kind of task. A task is given plain options, checks them itself, and knows no paths and no trainer."""

    roles: tuple[str, ...]  # columns of the user's data that it needs; the first is what the model reads
    monitor: str  # the validation metric that decides early stopping and the best epoch
    monitor_mode: str
    max_length: int

    def content(self, values: Mapping[str, str]) -> str:
        """What makes two rows the same row."""

    def target(self, values: Mapping[str, str]) -> str:
        """The answer that a row gives, as text."""

    def problems(self, values: Mapping[str, str], labels: Sequence[str] | None) -> Iterator[tuple[str, str, str]]:
        """Yields (check, role, remedy) for everything wrong with one row."""

    def encode(self, rows: Sequence[Mapping[str, str]], tokenizer: Tokenizer, labels: Sequence[str] | None) -> Columns:
        """Turns rows into columns; `length` (tokens) and `truncated` are among them, targets where `labels` are given."""

    def collate(self, columns: Mapping[str, Sequence[Any]], pad_token_id: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Turns columns of some rows into the model's inputs and the targets."""

    @property
    def auto_class(self) -> str:
        """The Auto class of transformers that holds the model."""

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        """Changes to the model's configuration."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Returns the loss of each row, shape (rows,); what regularises it (label smoothing) only in training."""

    def metrics(self, num_labels: int) -> MetricCollection:
        """The metrics of validation, without their prefix."""

    def outputs(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """What evaluation keeps of each row: probabilities, (rows, labels)."""

    def predictions(self, outputs: NDArray[np.float64], labels: Sequence[str]) -> dict[str, list[Any]]:
        """Columns that a person reads, one value a row: the answer and how sure the model is."""

    def scores(
        self, targets: NDArray[np.int64], outputs: NDArray[np.float64], weights: NDArray[np.float64], labels: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        """Everything to be reported, for each row of `weights`.

        `weights` (resamples, rows) says how often each row is counted: all ones give the plain value, the counts of a
        bootstrap sample give that sample's.
        """

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Outputs of simple methods, fitted on `train`, for the rows of `split`."""
