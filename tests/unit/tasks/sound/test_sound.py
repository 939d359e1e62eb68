"""Sound: features, losses, texts and labels are those of plain transformers; windows, rates and scores are what they say."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jiwer
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoProcessor, Wav2Vec2FeatureExtractor

from finespun.config import targets
from finespun.config.sections import ModelConfig, Target
from finespun.data import audio
from finespun.data.images import Places, UnreadableError
from finespun.errors import ModelError
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load, load_model
from finespun.tasks.base import Batch
from finespun.tasks.sound.transcripts import plain, transcript_scores, transcripts
from finespun.training.begin import begin
from helpers import ROOT, real_rows
from small_run import small_config
from speakers import SECONDS, make_tiny_whisper, tone, tone_files


def build(name: str, **changes: Any) -> Any:
    said = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text())
    return targets.build("task", Target.model_validate(said | changes))


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("tones")
    return folder, tone_files(folder, each=4)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    make_tiny_whisper(folder / "made")
    return ready(ModelConfig(checkpoint=str(folder / "made")), folder, auto_class="AutoModelForSpeechSeq2Seq")


def encoded(task: Any, folder: Path, rows: list[dict[str, str]], labels: list[str] | None) -> tuple[Any, pa.Table]:
    encoder = task.encoder(folder)
    columns = task.encode(rows, encoder, labels)
    columns["row"] = columns.pop("source")
    return encoder, pa.table(columns)


def collated(task: Any, encoder: Any, table: pa.Table) -> Batch:
    names = [name for name in (*task.model_columns, "target") if name in table.column_names]
    inputs, wanted = task.collate({name: table[name].to_pylist() for name in names}, encoder)
    return Batch(inputs, wanted, torch.arange(table.num_rows), torch.ones(table.num_rows), table.num_rows)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_of_any_width_is_the_same_sound(width: int, channels: int, tmp_path: Path) -> None:
    import wave

    values = tone(440, seconds=0.1).astype(np.int64)
    parts = np.repeat(values[:, None], channels, axis=1).ravel() << 16
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, width, 16_000, 0, "NONE", ""))
        raw = parts.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 4 - width :]
        file.writeframes(bytes((raw[:, 0] ^ 0x80) if width == 1 else raw))
    read = audio.read(str(tmp_path / "a.wav"), Places((Path(),), (tmp_path,)), rate=16_000)
    assert np.abs(read - values).max() <= (256 if width == 1 else 0)


def test_other_rates_and_kinds_are_the_same_tone(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for rate, ending in ((8_000, "wav"), (44_100, "flac"), (22_050, "ogg"), (16_000, "mp3")):
        path = tmp_path / f"{rate}.{ending}"
        soundfile.write(path, tone(1000, rate=rate), rate)
        found = audio.read(str(path), Places((Path(),), (tmp_path,)), rate=16_000)
        heard = np.abs(np.fft.rfft(found)).argmax() * 16_000 / len(found)
        assert (abs(len(found) - 16_000) < 1600, round(heard / 20)) == (True, 50)


def test_features_are_those_of_the_checkpoint_s_own_extractor(tones: tuple[Path, list[dict[str, str]]], whisper: Path) -> None:
    folder, rows = tones
    task = build("audio_classification", seconds=1).reading_from(folder)
    encoder, table = encoded(task, whisper, rows, ["high", "low", "middle"])
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as training may compute
        batch = collated(task, encoder, table)
    theirs = AutoFeatureExtractor.from_pretrained(whisper, **task.processor_options(encoder))
    samples = [np.frombuffer(each, np.int16).astype(np.float32) / 2**15 for each in table["samples"].to_pylist()]
    wanted = theirs(samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
    assert wanted.shape == (12, 80, 100)
    torch.testing.assert_close(batch.inputs["input_features"], wanted)
    assert table["length"].to_pylist() == [30] * 12  # of 20 ms
    assert task.reading_from(folder).content(rows[0]) != task.content(rows[1])


def test_raw_sound_is_padded_to_the_longest(tones: tuple[Path, list[dict[str, str]]], tmp_path: Path) -> None:
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    task = build("audio_multi_label", seconds=2, windows="first").reading_from(tones[0])
    encoder, table = encoded(
        task, tmp_path, [{"audio": row["audio"], "labels": row["label"]} for row in tones[1]], ["low", "high"]
    )
    batch = collated(task, encoder, table)
    assert {name: tuple(each.shape) for name, each in batch.inputs.items()} == {
        "input_values": (12, 9600), "attention_mask": (12, 9600),
    }  # fmt: skip
    assert task.model_options(["low", "high"]).get("max_source_positions") is None


def test_a_long_recording_is_heard_in_windows_whose_outputs_are_averaged(whisper: Path, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(audio.wav(tone(440, seconds=2.5), 16_000))
    (tmp_path / "short.wav").write_bytes(audio.wav(tone(440, seconds=0.5), 16_000))
    task = build("audio_classification", seconds=1).reading_from(tmp_path)
    rows = [{"audio": "long.wav", "label": "a"}, {"audio": "short.wav", "label": "b"}]
    _, table = encoded(task, whisper, rows, ["a", "b"])
    assert table["row"].to_pylist() == [0, 0, 0, 1]
    assert table["target"].to_pylist() == [0, 0, 0, 1]
    outputs = [np.array(each) for each in ([0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7])]
    said = task.predictions(table, outputs, ["a", "b"], top_k=1)
    assert [(each["label"], each["probability"]) for each in said] == [("b", 0.6), ("b", 0.7)]
    judged = task.judge(table, outputs, ["a", "b"])
    assert (judged.units, judged.scores(np.ones((1, 2)))["accuracy"][0]) == (2, 0.5)
    first = build("audio_classification", seconds=1, windows="first").reading_from(tmp_path)
    _, table = encoded(first, whisper, rows, ["a", "b"])
    assert (table.num_rows, table["truncated"].to_pylist()) == (2, [True, False])


def test_tones_are_told_apart_after_a_few_steps(tones: tuple[Path, list[dict[str, str]]], whisper: Path) -> None:
    labels = ["high", "low", "middle"]
    task = build("audio_classification", seconds=1).reading_from(tones[0])
    encoder, table = encoded(task, whisper, tones[1], labels)
    batch = collated(task, encoder, table)
    torch.manual_seed(0)
    options = task.model_options(labels)
    assert options["max_source_positions"] == 50
    model, _ = load(whisper, auto_class=task.auto_class, options=options, new_head=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        task.losses(task.forward(model, batch), batch).mean().backward()
        optimizer.step()
    with torch.inference_mode():
        judged = task.judge(table, task.predict(model.eval(), batch.inputs), labels)
    assert judged.scores(np.ones((1, 12)))["accuracy"][0] == 1
    found = task.baselines(table, table, labels)
    assert set(found) == {"majority_class", "spectrum_logistic"}
    assert (np.stack(found["spectrum_logistic"]).argmax(axis=1) == table["target"].to_numpy()).all()


def speech(whisper: Path, folder: Path, **changes: Any) -> Any:
    generation = {
        "max_new_tokens": 16,
        "num_beams": 1,
        "length_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "repetition_penalty": 1.0,
    }
    return build("speech_recognition", max_target_length=16, generation=generation, **changes).reading_from(folder)


def test_loss_and_text_are_those_of_plain_transformers(tones: tuple[Path, list[dict[str, str]]], whisper: Path) -> None:
    task = speech(whisper, tones[0])
    encoder, table = encoded(task, whisper, tones[1], ["target"])
    batch = collated(task, encoder, table)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(whisper).eval()
    task.equip(model, encoder, whisper)
    processor = AutoProcessor.from_pretrained(whisper)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(50):
        optimizer.zero_grad()
        task.losses(task.forward(model, batch), batch).mean().backward()
        optimizer.step()
    with torch.inference_mode():
        losses, counts = task.losses(task.forward(model, batch), batch), torch.from_numpy(task.counts(table))
        theirs = model(**batch.inputs, labels=batch.targets).loss
        assert float((losses * counts).sum() / counts.sum()) == pytest.approx(float(theirs), abs=1e-5)
        outputs = task.evaluate(model, batch)
        written = processor.batch_decode(model.generate(**batch.inputs), skip_special_tokens=True)
    answers = [each["generated_text"] for each in task.predictions(table, outputs, [], top_k=1)]
    assert answers == [text.strip() for text in written]
    targets_ = [row["target"] for row in tones[1]]
    assert {*answers} <= {*targets_}  # it has learnt what may be said
    judged = task.judge(table, outputs, ["target"])
    scores = judged.scores(np.ones((1, 12)))
    assert scores["wer"][0] == pytest.approx(jiwer.wer(targets_, answers))
    assert scores["exact_match"][0] == pytest.approx(
        np.mean([each == text for each, text in zip(targets_, answers, strict=True)])
    )
    assert scores["perplexity"][0] == pytest.approx(float(torch.exp((losses * counts).sum() / counts.sum())), rel=1e-4)
    guessed = task.judge(table, task.baselines(table, table, [])["most_frequent_target"], ["target"])
    assert 0 < guessed.scores(np.ones((1, 12)))["wer"][0] < 1


def test_a_long_recording_is_transcribed_window_by_window_and_never_learnt(whisper: Path, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(audio.wav(tone(440, seconds=2 * SECONDS + 0.5), 16_000))
    task = speech(whisper, tmp_path)
    encoder, table = encoded(task, whisper, [{"audio": "long.wav"}], None)
    assert table["row"].to_pylist() == [0, 0, 0]
    said = [encoder.ids(text, special=False) for text in (" one", " two", "")]
    outputs = [np.array([np.nan, *ids]) for ids in said]
    assert task.predictions(table, outputs, [], top_k=1) == [{"generated_text": "one two"}]
    (problem,) = task.problems({"audio": "long.wav", "target": "one two"}, None)
    assert problem[:2] == ("bad_audio", "audio")
    assert problem[2].startswith("is 4.5 seconds long, and the model hears 2 at once; cut it and its target into pieces")
    assert not [*task.problems({"audio": "long.wav"}, None)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"language": "fr"}, r"its tokenizer has no <\|fr\|>"),
        ({"max_target_length": 40}, "has 32 positions for what it writes"),
    ],
)
def test_what_a_model_cannot_write_is_refused(changes: dict[str, Any], said: str, whisper: Path, tmp_path: Path) -> None:
    task = build("speech_recognition", **{"max_target_length": 16, **changes}).reading_from(tmp_path)
    (tmp_path / "a.wav").write_bytes(audio.wav(tone(440), 16_000))
    model = AutoModelForSpeechSeq2Seq.from_pretrained(whisper)
    encoder = task.encoder(whisper)
    with pytest.raises(ModelError, match=said):  # noqa: PT012  (where it is found differs)
        task.encode([{"audio": "a.wav", "target": "x"}], encoder, ["target"])
        task.equip(model, encoder, whisper)


def test_a_language_and_its_task_begin_a_target(whisper: Path, tmp_path: Path) -> None:
    task = speech(whisper, tmp_path, language="de")
    encoder = task.encoder(whisper)
    ids = task.target_ids({"target": "a low tone"}, encoder)
    begins = ["<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert [encoder.tokenizer.id_to_token(number) for number in ids[:3]] == begins
    assert encoder.tokenizer.decode(ids[3:]) == " a low tone"
    model = AutoModelForSpeechSeq2Seq.from_pretrained(whisper)
    task.equip(model, encoder, whisper)
    assert (model.generation_config.language, model.generation_config.task) == ("de", "transcribe")


def test_error_rates_are_those_of_jiwer() -> None:
    references = [row["text"] for row in real_rows(30)]
    predictions = [" ".join(reversed(text.split()[:9])) if number % 3 else text[4:] for number, text in enumerate(references)]
    found = transcripts(references, predictions, np.full(30, np.nan), np.ones(30))
    scores = transcript_scores(found, np.ones((1, 30)))
    ours, theirs = ([plain(text) for text in texts] for texts in (references, predictions))
    assert scores["wer"][0] == pytest.approx(jiwer.wer(ours, theirs), abs=1e-9)
    assert scores["cer"][0] == pytest.approx(jiwer.cer(ours, theirs), abs=1e-9)
    assert "perplexity" not in scores
    weights = np.zeros((1, 30))
    weights[0, 4] = 2
    assert transcript_scores(found, weights)["wer"][0] == pytest.approx(jiwer.wer(ours[4], theirs[4]), abs=1e-9)
    assert plain("I'm sorry -- That\N{RIGHT SINGLE QUOTATION MARK}s NOT valid.") == "i'm sorry that's not valid"


def test_an_example_works_where_its_file_is_not(
    tones: tuple[Path, list[dict[str, str]]], whisper: Path, tmp_path: Path
) -> None:
    task = build("audio_classification").reading_from(tones[0])
    encoder, table = encoded(task, whisper, tones[1][:1], ["low", "high"])
    given = task.given(table.to_pylist()[0])
    away = task.reading_from(tmp_path)
    assert away.encode([given], encoder, None)["samples"].to_pylist() == table["samples"].to_pylist()
    with pytest.raises(UnreadableError, match="is not base64"):
        audio.read("data:audio/wav;base64,?", Places((), ()), rate=8_000)


def test_at_least_sixty_prompts_have_a_transcript() -> None:
    with (ROOT / "tests" / "data" / "asterisk_en.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["prompt"] for row in rows}) == len(rows)
    said = {split: [plain(row["transcript"]) for row in rows if row["split"] == split] for split in ("train", "val", "test")}
    assert len(said["test"]) >= 60
    assert all(map(all, said.values()))
    assert not {*said["test"]} & {*said["train"], *said["val"]}, "what is tested is said in no other recording"


def test_a_shorter_window_needs_fewer_positions(tones: tuple[Path, list[dict[str, str]]], whisper: Path) -> None:
    task = speech(whisper, tones[0], seconds=1)
    encoder, table = encoded(task, whisper, tones[1], ["target"])
    batch = collated(task, encoder, table)
    model = load_model(whisper, auto_class=task.auto_class, options=task.model_options([])).eval()
    task.equip(model, encoder, whisper)
    assert batch.inputs["input_features"].shape[-1] == 2 * model.config.max_source_positions == 100
    with torch.inference_mode():
        losses, counts = task.losses(task.forward(model, batch), batch), torch.from_numpy(task.counts(table))
        theirs = model(**batch.inputs, labels=batch.targets).loss
        outputs = task.evaluate(model, batch)
    assert float((losses * counts).sum() / counts.sum()) == pytest.approx(float(theirs), abs=1e-5)
    assert len(outputs) == table.num_rows


@pytest.mark.parametrize(("name", "answer"), [("audio_classification", "label"), ("speech_recognition", "target")])
def test_training_begins_with_no_more_positions_than_a_window_needs(name: str, answer: str, whisper: Path) -> None:
    said = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text()) | {"seconds": 1}
    if answer == "target":  # the tiny model writes no more
        said |= {"max_target_length": 16, "generation": said["generation"] | {"max_new_tokens": 16}}
    data = {"path": "tones.csv", "columns": {"audio": "audio", answer: answer}}
    prepared: Any = SimpleNamespace(labels=["high", "low"], open=lambda _: None)
    begun = begin(small_config(task=said, data=data), whisper, prepared)
    assert begun.tuning.model.config.max_source_positions == 50


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "has no feature extractor for sound"), ({"image_processor_type": "ViT"}, "take a checkpoint with one: Whisper"),
        ({"sampling_rate": "high"}, "a sampling_rate"),
        ({"sampling_rate": 16_000, "chunk_length": 2, "hop_length": 160}, "task.seconds: 3 is more than the 2"),
    ],
)  # fmt: skip
def test_a_checkpoint_without_ears_is_refused(settings: dict[str, Any] | None, said: str, tmp_path: Path) -> None:
    import json

    if settings is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=said):
        build("audio_classification", seconds=3).encoder(tmp_path)
