"""Tasks that write, through the real pipeline: prepare to report, prediction, the MLflow model."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from sacrebleu.metrics import CHRF

from helpers import Project, make_project, write_csv
from writers import pairs


def writing_project(folder: Path, model: Path, *, task: str, rows: int = 60) -> Project:
    """A project with few pairs of texts and a tiny model that writes."""
    project = make_project(folder, model)
    write_csv(project.folder / "data" / "raw" / "pairs.csv", [{"Review": r["text"], "Words": r["target"]} for r in pairs(rows)])
    (project.folder / "conf" / "data" / "pairs.yaml").write_text(
        "path: data/raw/pairs.csv\ncolumns: {text: Review, target: Words}\n"
        "split: {train: 0.7, val: 0.15, test: 0.15, seed: 1}\n"
    )
    project.edit("params.yaml", data="pairs", task=task)
    project.edit(f"conf/task/{task}.yaml", max_length=64, max_target_length=24, generation__max_new_tokens=16)
    project.edit("conf/trainer/default.yaml", max_epochs=2, batch_size=8)
    return project


def generated(project: Project, rows: list[dict[str, str]]) -> list[str]:
    """What plain transformers writes after each prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = project.folder / "models" / "finetuned"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        given = tokenizer(row["text"] + "\n", return_tensors="pt")
        ids = model.generate(**given)[0, given["input_ids"].shape[1] :]
        found.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_language_model_is_tuned_tested_and_asked(strategy: str, tmp_path: Path, tiny_llama: Path) -> None:
    project = writing_project(tmp_path / "project", tiny_llama, task="text_generation")
    project.edit("params.yaml", strategy=strategy)
    project.run("dvc", "repro")
    reports = project.folder / "reports"
    metrics = json.loads((reports / "test" / "metrics.json").read_text())
    told = pq.read_table(reports / "test" / "predictions.parquet").to_pydict()
    assert metrics["chrf"] == pytest.approx(CHRF().corpus_score(told["predicted"], [told["target"]]).score, abs=1e-6)
    assert {"rouge1", "rouge2", "rougeL", "bleu", "exact_match", "perplexity"} <= set(metrics)
    details = json.loads((reports / "evaluation" / "details.json").read_text())
    assert {"lead", "source", "nearest_training_row"} == set(details["baselines"])
    settings = json.loads((project.folder / "models" / "finetuned" / "generation_config.json").read_text())
    assert (settings["max_new_tokens"], settings["num_beams"]) == (16, 1)
    history = (project.folder / "models" / "finetuned" / "history.csv").read_text()
    assert "val/token_accuracy" in history
    rows = sorted(pairs(60), key=lambda row: len(row["text"]))[:6]
    write_csv(project.folder / "in.csv", [{"Review": row["text"]} for row in [*rows, {"text": " "}]])
    project.run("finespun", "predict", "in.csv", "--output", "out.jsonl")
    answers = [json.loads(line) for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert answers.pop()["error"] == "Review is empty"
    assert [answer["generated_text"] for answer in answers] == generated(project, rows)
    if strategy == "full":
        assert served(project, pd.DataFrame({"Review": [row["text"] for row in rows]})) == generated(project, rows)
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    tables = sorted(path.name for path in (project.folder / "mlruns").rglob(f"{run}/artifacts/tables/*.json"))
    assert tables == ["evaluation.json", "test.json"]
    assert "ROUGE-L" in project.run("finespun", "summary").stdout
    assert told["target"][0].split()[0] in (reports / "index.html").read_text()


@pytest.mark.slow
def test_an_encoder_decoder_is_tuned_and_tested_beside_what_it_was(tmp_path: Path, tiny_bart: Path) -> None:
    project = writing_project(tmp_path / "project", tiny_bart, task="seq2seq")
    project.edit("conf/evaluation/default.yaml", zero_shot=True)
    project.edit("conf/optimizer/adamw.yaml", lr=3e-3)
    project.run("dvc", "repro")
    details = json.loads((project.folder / "reports" / "test" / "details.json").read_text())
    assert {"lead", "source", "nearest_training_row", "zero_shot"} == set(details["baselines"])
    assert details["scores"]["perplexity"]["value"] < details["baselines"]["zero_shot"]["perplexity"]
    assert set(details["comparison"]["zero_shot"]["differences"]["rougeL"]) == {"value", "low", "high"}


def served(project: Project, rows: pd.DataFrame) -> list[str]:
    """What the MLflow model writes, asked in a process of its own."""
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    rows.to_json(project.folder / "rows.json", orient="records")
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        "model.predict(pd.read_json('rows.json', orient='records')).to_json('answers.json', orient='records')"
    )
    project.run("python", "-c", code)
    return [row["generated_text"] for row in json.loads((project.folder / "answers.json").read_text())]
