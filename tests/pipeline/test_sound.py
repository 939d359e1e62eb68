"""Tasks that hear, through the real pipeline, on a generated set of tones: prepare to report, and prediction."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, AutoModelForSpeechSeq2Seq, AutoProcessor

from helpers import Project, make_project, states, training
from speakers import make_tiny_whisper, tone_files


def sound_project(folder: Path, *, task: str, columns: str) -> Project:
    """A project with 60 tones and a tiny Whisper in CTranslate2's format."""
    make_tiny_whisper(folder / "whisper")
    project = make_project(folder / "project", folder / "whisper")
    tone_files(project.folder / "data" / "raw" / "tones", each=20)
    (project.folder / "conf" / "data" / "tones.yaml").write_text(
        f"path: data/raw/tones/tones.csv\ncolumns: {columns}\nsplit: {{train: 0.6, val: 0.2, test: 0.2, seed: 1}}\n"
    )
    project.edit("params.yaml", data="tones", task=task)
    project.edit("conf/trainer/default.yaml", max_epochs=2, batch_size=8)
    return project


@pytest.mark.slow
def test_recordings_are_classified(tmp_path: Path) -> None:
    project = sound_project(tmp_path, task="audio_classification", columns="{audio: audio, label: label}")
    project.edit("conf/task/audio_classification.yaml", seconds=1)
    project.edit("conf/optimizer/adamw.yaml", lr=3e-3)
    project.run("dvc", "repro")
    details = json.loads((project.folder / "reports" / "test" / "details.json").read_text())
    assert {"majority_class", "spectrum_logistic"} == set(details["baselines"])
    model = project.folder / "models" / "finetuned"
    assert AutoFeatureExtractor.from_pretrained(model).nb_max_frames == 100
    assert AutoModelForAudioClassification.from_pretrained(model).config.max_source_positions == 50
    project.run("finespun", "predict", "data/raw/tones/tones.csv", "--output", "out.jsonl")
    answers = [json.loads(line) for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert len(answers) == 60
    assert {answer["error"] for answer in answers} == {""}
    assert "tones" in (project.folder / "reports" / "index.html").read_text()


@pytest.mark.slow
def test_recordings_are_transcribed(tmp_path: Path) -> None:
    project = sound_project(tmp_path, task="speech_recognition", columns="{audio: audio, target: target}")
    project.edit("conf/task/speech_recognition.yaml", seconds=1, max_target_length=16, generation__max_new_tokens=16)
    project.edit("conf/evaluation/default.yaml", zero_shot=True)
    project.edit("conf/optimizer/adamw.yaml", lr=5e-3)
    project.run("dvc", "repro")
    details = json.loads((project.folder / "reports" / "test" / "details.json").read_text())
    assert {"most_frequent_target", "zero_shot"} == set(details["baselines"])
    assert details["scores"]["perplexity"]["value"] < details["baselines"]["zero_shot"]["perplexity"] / 2
    assert set(details["comparison"]["zero_shot"]["differences"]["wer"]) == {"value", "low", "high"}
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pydict()
    assert {*told["target"]} <= {"a low tone", "a middle tone", "a high tone"}
    model = project.folder / "models" / "finetuned"
    assert AutoModelForSpeechSeq2Seq.from_pretrained(model).generation_config.max_new_tokens == 16
    assert AutoProcessor.from_pretrained(model).feature_extractor.chunk_length == 1


@pytest.mark.slow
def test_training_on_sound_that_was_killed_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = sound_project(tmp_path, task="speech_recognition", columns="{audio: audio, target: target}")
    whole.edit("conf/task/speech_recognition.yaml", max_target_length=16, generation__max_new_tokens=16)
    whole.edit("conf/runtime/default.yaml", checkpoint_seconds=0)
    whole.run("dvc", "repro", "prepare")
    killed = whole.copy(tmp_path / "killed")
    whole.run("dvc", "repro", "finetune")
    with training(killed, "finetune") as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert states(killed), "killed in mid-training: a checkpoint must be left"
    assert "taking up state-" in killed.run("dvc", "repro", "finetune").stdout
    one, other = (project.folder / "models" / "finetuned" / "model.safetensors" for project in (whole, killed))
    assert one.read_bytes() == other.read_bytes()
