"""What is wrong with sound and with texts that are to be written: each is named, with the remedy, before anything trains."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finespun.config import targets
from finespun.config.sections import Target
from finespun.data.audio import wav
from finespun.errors import ConfigError, DataError, ModelError
from small_run import small_config
from speakers import make_tiny_whisper, tone, tone_files
from tables import prepared
from writers import GENERATION, TASK, make_tokenizer

GOOD = wav(tone(440, seconds=0.5), 16_000)
HEARD = {"audio": "audio", "label": "label"}
SAID = {"audio": "audio", "target": "target"}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    make_tiny_whisper(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with thirty good recordings; another lies outside of it."""
    folder = tmp_path / "project" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "outside.wav").write_bytes(GOOD)
    return folder


def floats(values: list[float]) -> bytes:
    """A WAV of 32-bit floats, as the standard library cannot read it."""
    content = struct.pack(f"<{len(values)}f", *values)
    form = struct.pack("<HHIIHH", 3, 1, 8_000, 32_000, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


RECORDINGS: dict[str, tuple[bytes | str, str]] = {
    "nothing": (b"", "is empty (0 bytes); fetch it again"),
    "no such file": ("none.wav", "is not there (looked in"),
    "no name": ("", "is empty; write the path of an audio file"),
    "a folder": (".", "is a folder; name one audio file"),
    "outside": ("../../outside.wav", "lies outside"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "is no audio of a known kind, or damaged"),
    "a text": (b"hello " * 40, "is no audio of a known kind, or damaged"),
    "a header alone": (GOOD[:44], "is cut short"),
    "half a header": (GOOD[:20], "is damaged"),
    "cut short": (GOOD[:3_000], "is cut short"),
    "no samples": (wav(np.zeros(0, np.int16), 8_000), "holds no sound (0 samples)"),
    "silence": (wav(np.zeros(4_000, np.int16), 8_000), "is silent from beginning to end"),
    "not a number": (floats([0.1, float("nan"), 0.2] * 50), "holds samples that are no numbers"),
    "infinity": (floats([0.1, float("inf"), 0.2] * 50), "holds samples that are no numbers"),
    "not base64": ("data:audio/wav;base64,???", "is not base64"),
    "a null in its name": ("a\0b.wav", "is no path that can be opened"),
}  # fmt: skip


def with_row(data: Path, content: bytes | str, columns: dict[str, str], **row: str) -> str:
    """A table of the good recordings and one row more."""
    lines = [json.loads(json.dumps(each)) for each in tone_files(data, each=10, seconds=0.3)]
    name = content if isinstance(content, str) else "odd.wav"
    if isinstance(content, bytes):
        (data / "odd.wav").write_bytes(content)
    lines.append({"audio": name, "label": "low", "target": "x", **row})
    return "\n".join(json.dumps({column: line[column] for column in columns.values()}) for line in lines) + "\n"


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_recording_that_cannot_be_heard_is_reported_or_dropped(kind: str, data: Path, whisper: Path) -> None:
    content, said = RECORDINGS[kind]
    table = with_row(data, content, HEARD)
    how: dict[str, Any] = {
        "task": "audio_classification",
        "name": "tones.jsonl",
        "columns": HEARD,
        "split": {"by": "stratified"},
    }
    with pytest.raises(DataError) as caught:
        prepared(data.parent, whisper, table, **how)
    assert "tones.jsonl:31: audio" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.exit_code == 3
    assert len(prepared(data.parent, whisper, table, checks={"bad_audio": "drop"}, **how).rows()) == 30


TEXTS: dict[str, tuple[dict[str, str], str]] = {
    "no target": ({"target": " "}, "is empty; write the text that is to be learnt"),
    "no text": ({"text": "\n"}, "is empty; write the text"),
    "two targets": ({"text": "text 3", "target": "another"}, "conflicting labels: 1 row"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_row_from_which_no_text_can_be_learnt_is_reported(kind: str, tmp_path: Path, tiny_llama: Path) -> None:
    row, said = TEXTS[kind]
    rows = [{"text": f"text {number}", "target": f"target {number}"} for number in range(30)] + [
        {"text": "t", "target": "x"} | row
    ]
    content = "\n".join(json.dumps(each) for each in rows) + "\n"
    columns = {"text": "text", "target": "target"}
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, tiny_llama, content, task="text_generation", name="pairs.jsonl", columns=columns)
    assert "pairs.jsonl:31" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.exit_code == 3


def test_targets_that_are_copies_and_targets_that_are_cut_are_counted(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"text {n}", "target": f"TEXT  {n}" if n % 2 else "a long target " * 40} for n in range(60)]
    content = "\n".join(json.dumps(each) for each in rows) + "\n"
    columns = {"text": "text", "target": "target"}
    prepared(tmp_path, tiny_llama, content, task="text_generation", name="pairs.jsonl", columns=columns)
    said = capsys.readouterr().out
    assert "are copies of their source; are they answers?" in said
    assert "are longer than task.max_target_length (64 tokens): their ends are not learnt" in said
    assert "%)" in said


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a prompt without a column": ({"prompt": "write"}, "names no column, so all rows would be alike"),
    "a prompt of a place": ({"prompt": "{0}"}, "is no name of a role"),
    "a prompt with a format": ({"prompt": "{text:>9}"}, "is no name of a role"),
    "an open brace": ({"prompt": "{text"}, "write a brace that is meant as one twice"),
    "a taken name": ({"prompt": "{target}"}, "is what finespun itself calls something else"),
    "an unknown column": ({"prompt": "{text} {title}"}, "data.columns.title: is missing"),
    "no new tokens": ({"generation": GENERATION | {"max_new_tokens": 0}}, "max_new_tokens"),
    "no beams": ({"generation": GENERATION | {"num_beams": 0}}, "num_beams"),
    "a penalty in vain": ({"generation": GENERATION | {"length_penalty": 2.0}}, "length_penalty is for beams"),
    "sampling": ({"generation": GENERATION | {"temperature": 0.7}}, "temperature"),
    "an unknown score": ({"headline": ["meteor"]}, "headline"),
    "a score of training": ({"monitor": "val/rougeL"}, "monitor"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_writing_that_make_no_sense_are_refused(kind: str) -> None:
    changes, said = SETTINGS[kind]
    with pytest.raises(ConfigError) as caught:
        small_config(task=TASK | changes, data={"path": "p.csv", "columns": {"text": "text", "target": "target"}})
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_model_that_knows_no_chat_is_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    task: Any = targets.build("task", Target.model_validate(TASK | {"chat": True}))
    with pytest.raises(ModelError, match="its tokenizer has no chat template; set task.chat: false"):
        task.encode([{"text": "a", "target": "b"}], task.encoder(tmp_path), ["target"])
