"""`finespun register`: a candidate becomes the champion if it is better on the same test rows by more than the interval."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finespun.artifacts import Artifacts
from finespun.errors import ConfigError, DataError, MachineError
from finespun.report import champion as registering
from finespun.report import page
from finespun.tracking.client import Tracker
from finespun.tracking.registry import Registry, champion_of, legal_model
from finespun.tracking.trace import runs_of
from reported import facts, split_facts
from small_run import small_config

ROWS = 200


def run_of(tracker: Tracker, accuracy: float, *, rows: int = ROWS, seed: int = 0) -> str:
    """A run that was tested, right in a share of rows; returns its id."""
    actual, random = np.random.default_rng(0).integers(0, 2, rows), np.random.default_rng(seed)
    right = np.where(random.random(rows) < accuracy, actual, 1 - actual)
    chances = np.where(right[:, None] == np.arange(2), 0.9, 0.1)
    table = {"row": range(rows), "text": [f"text {number}" for number in range(rows)],
             "label": [str(each) for each in actual], "predicted": [str(each) for each in right],
             "probability/0": chances[:, 0], "probability/1": chances[:, 1]}  # fmt: skip
    folder = tracker.artifacts.project / f"test-{accuracy}-{rows}-{seed}"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / "predictions.parquet")
    share = float((right == actual).mean())
    details: dict[str, Any] = {
        "shown": ["accuracy", "log_loss"], "labels": ["0", "1"], "confidence": 0.95, "baselines": {},
        "scores": {"accuracy": {"value": share, "low": share - 0.05, "high": share + 0.05}},
    }  # fmt: skip
    (folder / "details.json").write_text(json.dumps(details))
    schema = {"name": "re/views", "columns": {"text": "text"}, "source": {"path": "r.csv", "sha256": "0" * 64},
              "digests": {"test": "1" * 64}, "rows": {"test": rows}}  # fmt: skip
    with tracker.start(f"model {accuracy}", tags={}, params={}) as run:
        run.log_data("test", schema)
        run.log_folder(folder, "test")
    made = tracker.client.create_logged_model(tracker.experiment_id, name="model", source_run_id=run.id)
    tracker.client.finalize_logged_model(made.model_id, "READY")
    return run.id


def register(
    artifacts: Artifacts, run_id: str, monkeypatch: pytest.MonkeyPatch, *, force: bool = False, **gate: Any
) -> None:  # fmt: skip
    config = small_config()
    gated = config.evaluation.gate.model_copy(update=gate)
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"gate": gated})})
    monkeypatch.setattr(registering, "compose", lambda _: (config, None))
    registering.register(artifacts, run_id=run_id, force=force)


def aliases(tracker: Tracker) -> dict[str, int]:
    return {name: int(version) for name, version in tracker.client.get_registered_model("re-views").aliases.items()}


def test_the_first_is_the_champion_and_only_a_better_one_follows(
    artifacts: Artifacts, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, same, better = (run_of(tracker, share, seed=seed) for seed, share in enumerate((0.7, 0.72, 0.9)))
    register(artifacts, first, monkeypatch)
    assert "there was none" in capsys.readouterr().out
    assert aliases(tracker) == {"candidate": 1, "champion": 1}
    register(artifacts, first, monkeypatch)
    assert "it is the champion already" in capsys.readouterr().out
    register(artifacts, same, monkeypatch)
    said = capsys.readouterr().out
    assert "the champion stays model 0.7 (version 1): Accuracy " in said
    assert "on 200 test rows: not better with 95% confidence" in said
    assert aliases(tracker) == {"candidate": 2, "champion": 1}
    register(artifacts, better, monkeypatch, margin=0.5)
    assert "not better by more than 50.0 points" in capsys.readouterr().out
    register(artifacts, better, monkeypatch, score="log_loss")
    assert "models:/re-views@champion is version 3: Log loss -" in capsys.readouterr().out
    assert aliases(tracker) == {"candidate": 3, "champion": 3}
    [found] = runs_of("re-views@champion", tracker, artifacts)
    assert found.info.run_id == better
    [model] = tracker.client.search_logged_models(["1"], filter_string=f"source_run_id = '{better}'")
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "re-views", "version": 3}]  # the UI's column


def test_whoever_insists_has_the_last_word(
    artifacts: Artifacts, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = run_of(tracker, 0.9), run_of(tracker, 0.6, seed=1)
    register(artifacts, good, monkeypatch)
    register(artifacts, bad, monkeypatch, force=True)
    assert "--force, although: Accuracy -" in capsys.readouterr().out
    assert aliases(tracker)["champion"] == 2


def test_what_cannot_be_registered_is_said(
    artifacts: Artifacts, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    with tracker.start("untested", tags={}, params={}) as run:
        pass
    with pytest.raises(MachineError, match=rf"run {run.id}: MLflow has no model of it; `dvc repro` makes"):
        register(artifacts, run.id, monkeypatch)
    made = tracker.client.create_logged_model(tracker.experiment_id, name="model", source_run_id=run.id)
    tracker.client.finalize_logged_model(made.model_id, "READY")
    with pytest.raises(MachineError, match="was not tested"):
        register(artifacts, run.id, monkeypatch)
    with pytest.raises(MachineError, match=f"MLflow does not know the run {'f' * 32}"):
        register(artifacts, "f" * 32, monkeypatch)
    register(artifacts, run_of(tracker, 0.7), monkeypatch)
    with pytest.raises(ConfigError, match=r"evaluation.gate.score: acuracy is not one of accuracy, log_loss"):
        register(artifacts, run_of(tracker, 0.8), monkeypatch, score="acuracy")
    with pytest.raises(DataError, match="too few"):
        register(artifacts, run_of(tracker, 0.8, rows=20, seed=5), monkeypatch)


def test_the_report_shows_the_model_beside_the_champion(
    artifacts: Artifacts, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = run_of(tracker, 0.7)
    register(artifacts, run_id, monkeypatch)
    champion = champion_of(tracker, "re-views", but="")
    assert champion is not None
    assert champion_of(tracker, "re-views", but=run_id) is None  # itself
    assert champion_of(tracker, "unknown", but="") is None
    ours = Registry(tracker).tested(run_of(tracker, 0.95, seed=2))
    found = registering.contest(ours.details, ours.predictions, champion, small_config().evaluation)
    assert found.won
    said = page.render(facts(), found)
    assert "Beside the champion: model 0.7 (version 1)" in said
    assert found.said.replace("+", "&#43;") in said or found.said in said
    assert "champion" not in page.render(facts(split_facts()))
    assert capsys.readouterr().err == ""


def test_names_are_as_mlflow_takes_them() -> None:
    assert legal_model('a/b:c"d') == "a-b-c-d"
