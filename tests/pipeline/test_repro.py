"""`dvc repro` on a small slice of the real data and a tiny model: what is made, what is rerun, what can be asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from helpers import Project

ALL = ["configure", "prepare", "finetune", "evaluate", "test", "report"]


@pytest.fixture
def again(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project that a test may change."""
    return finished.copy(tmp_path / "again")


def test_every_stage_leaves_what_dvc_yaml_promises(finished: Project) -> None:
    stages = yaml.safe_load((finished.folder / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ALL
    for stage in stages.values():
        for out in (*stage.get("outs", []), *stage.get("metrics", [])):
            path = out if isinstance(out, str) else next(iter(out))
            assert (finished.folder / path).exists(), path
    assert finished.run("dvc", "status").stdout == "Data and pipelines are up to date.\n"
    assert finished.run("git", "status", "--short").stdout == ""


def test_the_model_is_everybodys(finished: Project) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = finished.folder / "models" / "finetuned"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (folder / "model.safetensors").is_file()
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert tokenizer.model_max_length == 48
    predictions = pq.read_table(finished.folder / "reports" / "test" / "predictions.parquet").to_pylist()
    for row in predictions:
        logits = model.eval()(**tokenizer(row["text"], truncation=True, return_tensors="pt")).logits[0]
        assert logits.softmax(0)[1].item() == pytest.approx(row["probability/positive"], abs=1e-5)


def test_reports_say_how_well_how_sure_and_against_what(finished: Project) -> None:
    for split, folder in (("val", "evaluation"), ("test", "test")):
        report = finished.folder / "reports" / folder
        metrics, details = (json.loads((report / f"{name}.json").read_text()) for name in ("metrics", "details"))
        schema = json.loads((finished.folder / "data" / "prepared" / "schema.json").read_text())
        assert metrics["rows"] == schema["rows"][split] == pq.read_metadata(report / "predictions.parquet").num_rows
        assert set(details["baselines"]) == {"majority_class", "tfidf_logistic"}
        assert {"accuracy", "f1_macro", "f1_micro", "log_loss", "precision/negative", "recall/positive"} <= set(
            details["scores"]
        )
        for score in details["scores"].values():
            assert score["low"] <= score["value"] <= score["high"]
        assert metrics["accuracy"] == details["scores"]["accuracy"]["value"]
    for picture in ("confusion.png", "training.png"):
        assert (finished.folder / "reports" / "evaluation" / picture).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def logged(finished: Project) -> Any:
    """The one run that MLflow has of the project."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{finished.folder}/mlruns/mlflow.db")
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return run


def record_of(project: Project) -> dict[str, Any]:
    return dict(json.loads((project.folder / "models" / "finetuned" / "run.json").read_text()))


def schema_of(project: Project) -> dict[str, Any]:
    return dict(json.loads((project.folder / "data" / "prepared" / "schema.json").read_text()))


def test_one_mlflow_run_says_what_was_chosen_and_what_made_it(finished: Project, logged: Any) -> None:
    import mlflow

    record, schema = record_of(finished), schema_of(finished)
    assert (logged.info.run_id, logged.info.status) == (record["run_id"], "FINISHED")
    assert logged.info.run_name == "movie_reviews · tiny-bert · full"
    assert logged.data.params["optimizer.lr"] == "0.001"
    assert {"data.split.seed", "seed", "trainer.batch_size", "precision", "model.checkpoint"} <= set(logged.data.params)
    assert not [name for name in logged.data.params if name.startswith("runtime")]
    assert "None" not in logged.data.params.values()
    standard = {"mlflow.user", "mlflow.source.git.commit", "mlflow.source.git.branch", "mlflow.note.content"}
    assert standard | {"data", "weights", "config", "hardware"} <= set(logged.data.tags)
    assert (logged.data.tags["mlflow.source.name"], logged.data.tags["mlflow.source.type"]) == ("dvc repro", "LOCAL")
    assert logged.data.tags["mlflow.source.git.commit"] in finished.run("git", "log", "--format=%H").stdout
    assert logged.data.tags["mlflow.note.content"].startswith("**Accuracy ")
    lineage = json.loads(mlflow.artifacts.load_text(f"runs:/{logged.info.run_id}/lineage.json"))
    assert lineage == record["lineage"]
    assert lineage["inputs"]["data/prepared/train.arrow"] == schema["digests"]["train"]
    assert "data/prepared" in lineage["dvc"]


def test_one_mlflow_run_has_all_numbers_in_groups(finished: Project, logged: Any) -> None:
    import mlflow

    client, run_id = mlflow.MlflowClient(), logged.info.run_id
    steps = [metric.step for metric in client.get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == list(range(1, record_of(finished)["steps"] + 1))
    for name in ("train/learning_rate", "train/gradient_norm", "train/samples_per_second", "val/f1_macro"):
        assert name in logged.data.metrics
    for stage, split in (("evaluation", "val"), ("test", "test")):
        metrics = json.loads((finished.folder / "reports" / stage / "metrics.json").read_text())
        assert logged.data.metrics[f"{split}/accuracy"] == pytest.approx(metrics["accuracy"])
        assert f"baseline/{split}/majority_class/accuracy" in logged.data.metrics
        assert f"{stage}/metrics.json" in [artifact.path for artifact in client.list_artifacts(run_id, stage)]
    costs = {"perf/train_minutes", "perf/peak_memory_mb", "perf/latency_ms_p50", "perf/val_rows_per_second"}
    assert costs <= set(logged.data.metrics)


def test_one_mlflow_run_has_the_data_the_report_and_pictures(finished: Project, logged: Any) -> None:
    import mlflow

    client, run_id = mlflow.MlflowClient(), logged.info.run_id
    used = {(each.dataset.name, each.tags[0].value, each.dataset.digest) for each in logged.inputs.dataset_inputs}
    contexts, digests = {"train": "training", "val": "validation", "test": "testing"}, schema_of(finished)["digests"]
    assert used == {(f"movie_reviews-{s}", context, digests[s][:36]) for s, context in contexts.items()}
    assert {"report/index.html", "report/model_card.md"} == {each.path for each in client.list_artifacts(run_id, "report")}
    assert "<h1>movie_reviews · tiny-bert · full</h1>" in mlflow.artifacts.load_text(f"runs:/{run_id}/report/index.html")
    pictures = {re.split("[+%]", Path(each.path).name)[0] for each in client.list_artifacts(run_id, "images")}
    assert pictures == {"confusion", "training"}


def test_the_model_in_mlflow_predicts_and_has_its_metrics(finished: Project, logged: Any) -> None:
    import mlflow

    [registered] = mlflow.MlflowClient().search_logged_models([logged.info.experiment_id])
    splits = {(metric.key, metric.dataset_name) for metric in registered.metrics}
    assert {("val/accuracy", "movie_reviews-val"), ("test/accuracy", "movie_reviews-test")} <= splits
    model = mlflow.pyfunc.load_model(f"runs:/{logged.info.run_id}/model")
    rows = pq.read_table(finished.folder / "reports" / "test" / "predictions.parquet").to_pandas()
    answers = model.predict(pd.DataFrame({"text": rows["text"]}))
    assert answers["label"].tolist() == rows["predicted"].tolist()
    assert model.metadata.signature.outputs.input_names() == ["label", "probability"]
    assert not list((finished.folder / "mlruns").rglob("*.pkl"))


def test_a_plot_title_trains_nothing(again: Project) -> None:
    again.edit("conf/report/default.yaml", confusion_title="Where it errs")
    before = (again.folder / "reports" / "evaluation" / "confusion.png").read_bytes()
    assert again.stages_run(again.run("dvc", "repro").stdout) == ["configure", "evaluate", "report"]
    assert (again.folder / "reports" / "evaluation" / "confusion.png").read_bytes() != before


def test_a_learning_rate_prepares_nothing_and_a_second_look_is_counted(again: Project) -> None:
    again.edit("conf/optimizer/adamw.yaml", lr=0.002)
    assert again.stages_run(again.run("dvc", "repro").stdout) == ["configure", "finetune", "evaluate", "test", "report"]
    assert json.loads((again.folder / "reports" / "test" / "metrics.json").read_text())["test_evaluations"] == 2
    assert "optimizer.lr" in again.run("dvc", "params", "diff").stdout
    assert "0.001" in again.run("dvc", "params", "diff").stdout


def test_a_comment_reruns_configure_alone_and_so_does_runtime(again: Project) -> None:
    path = again.folder / "conf" / "trainer" / "default.yaml"
    path.write_text(path.read_text() + "# patience\n")
    assert again.stages_run(again.run("dvc", "repro").stdout) == ["configure"]
    again.edit("conf/runtime/default.yaml", num_workers=1)
    assert again.stages_run(again.run("dvc", "repro").stdout) == ["configure"]
    assert again.stages_run(again.run("dvc", "repro").stdout) == []


def test_dvc_answers_as_its_documentation_promises(finished: Project, tmp_path: Path) -> None:
    shown = json.loads(finished.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {"reports/evaluation/metrics.json", "reports/test/metrics.json"}
    finished.run("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "Confusion matrix (validation)" in page
    assert "The monitored validation metric" in page
    assert all(name in finished.run("dvc", "dag").stdout for name in ALL)
    assert finished.run("dvc", "params", "diff").stdout == ""


@pytest.mark.slow
def test_experiments_set_a_file_of_conf_and_a_queue_runs_its_own_code(again: Project) -> None:
    again.edit("conf/trainer/default.yaml", max_epochs=1)
    again.commit("one epoch")
    again.run("dvc", "exp", "run", "--queue", "-S", "model=tiny", "-S", "conf/optimizer/adamw.yaml:lr=0.002,0.003")
    marker = again.folder / "src" / "finespun" / "stages" / "configure.py"
    line = "    config, composed = compose"
    marker.write_text(marker.read_text().replace(line, f"    raise SystemExit(77)\n{line}"))
    again.run("dvc", "exp", "run", "--run-all")  # queued experiments have the code of when they were queued
    shown = json.loads(again.run("dvc", "exp", "show", "--json").stdout)
    [baseline] = [each for each in shown if each["rev"] != "workspace"]
    experiments = [each["revs"][0]["data"] for each in baseline["experiments"]]
    rates = {each["params"]["build/config.yaml"]["data"]["optimizer"]["lr"] for each in experiments}
    assert rates == {0.002, 0.003}
    assert all("accuracy" in each["metrics"]["reports/test/metrics.json"]["data"] for each in experiments)
