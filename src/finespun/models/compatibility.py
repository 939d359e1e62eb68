"""Whether a model, its tokenizer and the rows fit each other; where a small change makes them fit, it is made and said.

All of it is tried on the CPU, on a few rows, before training: on a GPU an id that is out of range ends the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finespun.data.loader import RowReader
from finespun.errors import ModelError, first_of
from finespun.failures import REFUSALS, ran_out_of_memory
from finespun.masking import one_line

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from finespun.tasks.base import Task
    from finespun.tasks.inputs.text import TextEncoder

TYPES = "token_type_ids"
TOLERANCE = 3e-4  # of the largest logit: between a row alone and in a padded batch


def add_embeddings(model: Any, tokenizer: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Adds rows to the embedding table for tokens that were added to the tokenizer alone, drawn as the model draws its own.

    Returns:
        What was done, for people, and the names of the tensors that have new rows; both empty where nothing was to do.

    Raises:
        ModelError: the tokenizer's own vocabulary is larger than the table: it is another model's.
    """
    try:
        table = model.get_input_embeddings()
        rows = int(table.num_embeddings)
    except (NotImplementedError, AttributeError):
        return [], []  # a model without such a table
    beyond = {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return [], []
    own = [token for number, token in sorted(beyond.items()) if number not in tokenizer.added_tokens_decoder]
    if own:
        raise ModelError(
            f"{folder}: its tokenizer has the tokens {first_of(own, 3)}, beyond the {rows:,} rows of the model's embedding"
            " table: it is the tokenizer of another model; name that of this model in model.tokenizer"
        )
    model.resize_token_embeddings(max(beyond) + 1, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    names = [name for name, each in model.named_parameters(remove_duplicate=False) if each is weight]
    count = max(beyond) + 1 - rows
    tokens = first_of([token for _, token in sorted(beyond.items())], 3)
    return [
        f"{count} new embeddings, drawn by the seed, for tokens that the tokenizer has and the model had not ({tokens})"
    ], names


def require_size(model: Any, size: tuple[int, int], folder: Path) -> None:
    """Makes sure that a model takes images of (height, width) pixels: many with position embeddings take one size alone.

    Raises:
        ModelError: it does not.
    """
    try:
        with torch.inference_mode():
            model.eval()(pixel_values=torch.zeros(1, 3, *size))
    except REFUSALS as error:
        _pass_on(error)
        raise ModelError(
            f"{folder}: {type(model).__name__} takes no images of {size[0]} x {size[1]} pixels ({one_line(error, 200)}); set"
            " task.image_size to null, or the sizes in model.processor to what the model takes"
        ) from error


def fitted_together(
    model: Any, tokenizer: Any, *, task: Task, encoder: TextEncoder, rows: pa.Table, folder: Path
) -> tuple[TextEncoder, list[str]]:  # fmt: skip
    """Makes a padded batch of finespun's and each row alone by transformers give the same logits, and returns how.

    Where they do not, or the model fails, three changes are tried, which are kept with the model and its tokenizer: no token
    types, the tokenizer's padding token in the model's configuration, or both.

    Args:
        model: on the CPU, as it was loaded.
        tokenizer: of transformers, from the same folder; where it has no padding token it is given the encoder's.
        task: says how rows become inputs.
        encoder: what finespun knows of the same tokenizer.
        rows: of prepared data; the longest among them.
        folder: of the checkpoint, for messages.

    Returns:
        The encoder to train and predict with, and what was changed, or a warning, for people.

    Raises:
        ModelError: the model cannot compute the rows, or none as long as `task.max_length`.
    """
    said = []
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(encoder.pad_token_id)
        said.append(f"padding token {tokenizer.pad_token!r}, for the tokenizer had none")
    tokenizer.padding_side = "right"  # as in training
    told_apart = TYPES in rows.column_names and any(map(any, rows[TYPES].to_pylist()))  # by types, the halves of pairs
    failure: Exception | None = None
    distance = 0.0
    for types, pad in ((True, False), (False, False), (True, True), (False, True)):
        trial = replace(encoder, token_types=types and told_apart)
        with _changed(model, tokenizer, trial, types=types, pad=pad) as keep:
            try:
                distance = _distance(model, tokenizer, task, trial, rows)
            except REFUSALS as error:
                _pass_on(error)
                failure = failure or error
                continue
            if distance <= TOLERANCE:
                keep()
                _require_room(model, task, trial, rows)
                return trial, said + _changes(tokenizer, types=types, pad=pad)
    _require_room(model, task, encoder, rows)
    if failure is not None:
        raise ModelError(
            f"{folder}: {type(model).__name__} cannot compute the rows ({one_line(failure, 200)}); choose another model or task"
        ) from failure
    said.append(
        f"warning: logits of a row in a padded batch differ from those of the row alone (by up to {distance:.1%}), so"
        f" predictions of {type(model).__name__} depend on the rows beside them; take another model where that matters"
    )
    return encoder, said


def _changes(tokenizer: Any, *, types: bool, pad: bool) -> list[str]:
    said = [] if types else ["no token types, which the model does not have or transformers would give otherwise"]
    return [*said, f"pad_token_id {tokenizer.pad_token_id} in the model's configuration"] if pad else said


@contextmanager
def _changed(model: Any, tokenizer: Any, encoder: TextEncoder, *, types: bool, pad: bool) -> Iterator[Callable[[], None]]:
    """Changes configuration and tokenizer to what a trial asks for, and yields what is to be called to keep that."""
    config, names = model.config.get_text_config(), list(tokenizer.model_input_names)
    before, kept = getattr(config, "pad_token_id", None), []
    if encoder.token_types and TYPES not in names:
        tokenizer.model_input_names = [*names, TYPES]
    if not types:
        tokenizer.model_input_names = [name for name in names if name != TYPES]
    if pad:
        config.pad_token_id = tokenizer.pad_token_id
    try:
        yield lambda: kept.append(True)
    finally:
        if kept:
            tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what is saved
        else:
            tokenizer.model_input_names, config.pad_token_id = names, before


def _inputs(task: Task, encoder: TextEncoder, rows: pa.Table) -> dict[str, torch.Tensor]:
    reader = RowReader(rows.select([name for name in task.model_columns if name in rows.column_names]))
    return task.collate(reader.take(np.arange(len(rows))), encoder)[0]


def _distance(model: Any, tokenizer: Any, task: Task, encoder: TextEncoder, rows: pa.Table) -> float:
    """Returns how far logits of rows in a padded batch are from those that transformers gives of each alone, as a share."""
    found = 0.0
    with torch.inference_mode():
        batch = model(**_inputs(task, encoder, rows)).logits
        for row, ours in zip(rows.to_pylist(), batch, strict=True):
            given = task.for_processor(row)
            if None in given.values():
                continue  # a later window of a document
            theirs = model(**tokenizer(**given, truncation=True, return_tensors="pt")).logits[0]
            found = max(found, float((ours[: len(theirs)] - theirs).abs().max()))
    return found / float(batch.abs().max().clamp(min=1e-12))


def _require_room(model: Any, task: Any, encoder: TextEncoder, rows: pa.Table) -> None:
    """Makes sure that a model computes rows of `task.max_length` tokens, and finds how many it can."""
    longest = max(rows.to_pylist(), key=lambda row: len(row["input_ids"]))

    def runs(length: int) -> bool:
        columns = {name: [_stretched(longest[name], length)] for name in task.model_columns if name in longest}
        try:
            with torch.inference_mode():
                model(**task.collate(columns, encoder)[0])
        except REFUSALS as error:
            _pass_on(error)
            return False
        return True

    if runs(task.max_length):
        return
    least, most = 0, task.max_length  # the longest that is known to run, the shortest that is known not to
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if runs(middle) else (least, middle)
    if least > 2:
        raise ModelError(
            f"task.max_length: {task.max_length} tokens asked for, {type(model).__name__} has positions for {least}; lower it"
            " in conf/task/, or take a model for longer texts"
        )


def _stretched(values: list[int], length: int) -> list[int]:
    """Returns a row cut or repeated to so many tokens, its last one, which models look for, at the end."""
    *body, last = values
    return [*(body * (length // max(1, len(body)) + 1))[: length - 1], last]


def _pass_on(error: BaseException) -> None:
    """What the model cannot help is not its failure."""
    if ran_out_of_memory(error):
        raise error
