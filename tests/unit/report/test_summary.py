"""The last words of a run: how well, against what, how sure, and how often the split was looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finespun.artifacts import Artifacts
from finespun.errors import MachineError
from finespun.report.summary import show

SCORES = {"accuracy": 0.81234, "f1_macro": 0.79, "f1_micro": 0.81234, "log_loss": 0.4567}
DETAILS: dict[str, Any] = {
    "confidence": 0.9,
    "shown": ["accuracy", "f1_macro", "log_loss"],
    "scores": {name: {"value": value, "low": value - 0.02, "high": value + 0.02} for name, value in SCORES.items()},
    "baselines": {
        "majority_class": {"accuracy": 0.5, "f1_macro": 0.333, "log_loss": 0.693},
        "tfidf_logistic": {"accuracy": 0.75, "f1_macro": 0.749, "log_loss": 0.55},
        "mine": {"accuracy": 0.6, "f1_macro": 0.6, "log_loss": 0.6},
    },
}


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(project=tmp_path, out=tmp_path)


def write(artifacts: Artifacts, *, times: int = 1, details: dict[str, Any] = DETAILS) -> None:
    folder = artifacts.report("test")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"rows": 1061, **SCORES, "test_evaluations": times}))
    (folder / "details.json").write_text(json.dumps(details))


@pytest.fixture
def lines(artifacts: Artifacts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "100")

    def read() -> dict[str, list[str]]:
        """First words of each line -> its cells."""
        show(artifacts)
        cells = [[cell for cell in line.split("  ") if cell.strip()] for line in capsys.readouterr().out.splitlines()]
        return {each[0].strip(): [cell.strip() for cell in each[1:]] for each in cells if each}

    return read


def test_the_model_stands_beside_the_baselines(artifacts: Artifacts, lines: Any) -> None:
    write(artifacts)
    found = lines()
    assert found["accuracy"] == ["F1 (macro)", "log loss"]
    assert found["majority class"] == ["0.500", "0.333", "0.693"]
    assert found["TF-IDF + logistic regr."] == ["0.750", "0.749", "0.550"]
    assert found["mine"] == ["0.600"] * 3
    assert found["fine-tuned"] == ["0.812", "0.790", "0.457"]
    assert found["90% interval"] == ["0.792 - 0.832", "0.770 - 0.810", "0.437 - 0.477"]
    assert found["the model"] == ["models/finetuned"]
    assert found["report"] == ["reports/index.html"]


@pytest.mark.parametrize(
    ("gap", "said"), [((0.04, 0.08), "better than"), ((-0.08, -0.04), "worse than"), ((-1, 1), "no different")]
)
def test_it_says_whether_that_is_good_and_else_what_to_try(
    artifacts: Artifacts, capsys: pytest.CaptureFixture[str], gap: tuple[float, float], said: str
) -> None:
    difference = {"value": sum(gap) / 2, "low": gap[0], "high": gap[1]}
    write(artifacts, details={**DETAILS, "comparison": {"tfidf_logistic": {"differences": {"accuracy": difference}}}})
    show(artifacts)
    text = " ".join(capsys.readouterr().out.split())
    assert said in text
    assert ("finespun run -m sweep=quick" in text) == (said != "better than")


def test_without_baselines_the_model_stands_alone(artifacts: Artifacts, lines: Any) -> None:
    write(artifacts, details={**DETAILS, "baselines": {}})
    found = lines()
    assert "fine-tuned" in found
    assert "majority class" not in found


@pytest.mark.parametrize(("times", "said"), [(1, "evaluated once"), (7, "evaluated 7 times")])
def test_it_says_how_often_the_split_was_evaluated(artifacts: Artifacts, lines: Any, times: int, said: str) -> None:
    write(artifacts, times=times)
    assert f"Test split: 1,061 rows, {said}" in lines()


@pytest.mark.parametrize("missing", ["metrics.json", "details.json"])
def test_results_that_are_not_there_are_named(artifacts: Artifacts, missing: str) -> None:
    write(artifacts)
    (artifacts.report("test") / missing).unlink()
    with pytest.raises(MachineError, match=f"reports/test/{missing}: is not there yet; `dvc repro` makes it"):
        show(artifacts)
