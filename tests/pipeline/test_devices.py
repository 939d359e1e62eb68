"""Two CPU processes (gloo): one MLflow run, each row once, the numbers of one process."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from helpers import Project, real_rows, write_csv

STAGES = ("python", "-m", "finespun.stages", "configure", "prepare", "finetune", "evaluate", "test", "--out")


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        ("full", "DDP"),
        pytest.param("gradual", "DDP", marks=pytest.mark.slow),
        pytest.param("full", "FSDP2", marks=pytest.mark.slow),
        pytest.param("lora", "FSDP2", marks=pytest.mark.slow),
    ],
)
def test_two_processes_end_like_one(project: Project, tmp_path: Path, strategy: str, kind: str) -> None:
    project.edit("params.yaml", strategy=strategy)
    project.edit("conf/strategy/lora.yaml", dropout=0.0)
    path = project.folder / "data" / "tiny-bert" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    project.edit("conf/trainer/default.yaml", precision="32-true", batch_size=15)
    project.run(*STAGES, str(tmp_path / "one"))
    project.edit("conf/runtime/default.yaml", devices=2, strategy={"DDP": "ddp", "FSDP2": "fsdp"}[kind])
    output = project.run(*STAGES, str(tmp_path / "two")).stdout
    assert output.count(f"{kind}, 2 processes") == 3, "finetune, evaluate, test"

    mlflow.set_tracking_uri(f"sqlite:///{project.folder}/mlruns/mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    steps = [len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")) for run in runs]
    assert steps[0] == steps[1]

    configs = [(tmp_path / name / "models" / "finetuned" / "config.json").read_text() for name in ("one", "two")]
    assert configs[0] == configs[1]
    one, two = (load_file(tmp_path / name / "models" / "finetuned" / "model.safetensors") for name in ("one", "two"))
    assert all(np.allclose(one[name], two[name], atol=1e-4) for name in one)
    for report in ("evaluation", "test"):
        ours, theirs = (
            pq.read_table(tmp_path / name / "reports" / report / "predictions.parquet").to_pandas() for name in ("one", "two")
        )
        assert ours["row"].tolist() == theirs["row"].tolist()
        assert np.allclose(ours["probability/positive"], theirs["probability/positive"], atol=1e-3)
        metrics = [json.loads((tmp_path / name / "reports" / report / "metrics.json").read_text()) for name in ("one", "two")]
        assert metrics[0]["rows"] == metrics[1]["rows"]
        assert abs(metrics[0]["log_loss"] - metrics[1]["log_loss"]) < 1e-3


@pytest.mark.slow
def test_tasks_that_finish_their_model_do_so_with_shards(project: Project, tmp_path: Path) -> None:
    """Numbers are folded into the head, thresholds chosen by one more validation: both after the shards are one again."""
    path = project.folder / "data" / "tiny-bert" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    rows = [{"text": row["text"], "labels": "long|film" if len(row["text"]) > 110 else "film"} for row in real_rows(200)]
    write_csv(project.folder / "data" / "raw" / "tagged.csv", rows)
    (project.folder / "conf" / "data" / "tagged.yaml").write_text(
        "path: data/raw/tagged.csv\ncolumns: {text: text, labels: labels}\n"
    )
    project.edit("conf/trainer/default.yaml", precision="32-true")
    for data, task in (("movie_ratings", "text_regression"), ("tagged", "multi_label")):
        project.edit("params.yaml", data=data, task=task)
        project.edit(f"conf/task/{task}.yaml", max_length=48)
        reports = []
        for devices in (1, 2):
            project.edit("conf/runtime/default.yaml", devices=devices, strategy="fsdp")
            out = tmp_path / f"{task}-{devices}"
            project.run(*STAGES[:6], "evaluate", "--out", str(out))
            reports.append(json.loads((out / "reports" / "evaluation" / "metrics.json").read_text()))
            config = json.loads((out / "models" / "finetuned" / "config.json").read_text())
            assert config["architectures"] == ["BertForSequenceClassification"]
            assert ("label_thresholds" in config) == (task == "multi_label")
        assert reports[0].keys() == reports[1].keys()
        assert all(abs(reports[0][name] - reports[1][name]) < 1e-3 for name in reports[0]), reports


def test_a_failure_of_a_worker_has_its_exit_code(project: Project, tmp_path: Path) -> None:
    project.edit("conf/runtime/default.yaml", devices=2)
    project.edit("conf/optimizer/adamw.yaml", lr=1e18)
    project.edit("conf/scheduler/linear.yaml", warmup_ratio=0.0)
    project.edit("conf/trainer/default.yaml", gradient_clip_norm=None, max_epochs=1)
    done = project.run(*STAGES[:6], "--out", str(tmp_path / "out"), check=False)
    assert done.returncode == 6
    assert "lower optimizer.lr" in done.stderr
