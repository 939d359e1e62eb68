"""Tasks that rank, through the real pipeline: prepare to report, prediction, vectors, the MLflow model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedders import pairs
from helpers import Project, make_project, write_csv
from recommenders import catalogue, events


def embedding_project(folder: Path, model: Path) -> Project:
    project = make_project(folder, model)
    rows = [{"Query": row["text"], "Document": row["positive"]} for row in pairs(90)]
    write_csv(project.folder / "data" / "raw" / "pairs.csv", rows)
    write_csv(project.folder / "data" / "raw" / "more.csv", [{"Body": f"another text of number {n}"} for n in range(20)])
    (project.folder / "conf" / "data" / "pairs.yaml").write_text(
        "path: data/raw/pairs.csv\ncolumns: {text: Query, positive: Document}\n"
        "split: {train: 0.7, val: 0.15, test: 0.15, seed: 1}\n"
        "items: {path: data/raw/more.csv, columns: {text: Body}}\n"
    )
    project.edit("params.yaml", data="pairs", task="text_embedding")
    project.edit("conf/task/text_embedding.yaml", max_length=48)
    return project


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "mined"), [("full", 0), ("lora", 2)])
def test_texts_are_embedded_ranked_and_found(strategy: str, mined: int, tmp_path: Path, tiny_bert: Path) -> None:
    project = embedding_project(tmp_path / "project", tiny_bert)
    project.edit("params.yaml", strategy=strategy)
    project.edit("conf/task/text_embedding.yaml", hard_negatives=mined)
    project.run("dvc", "repro")
    reports = project.folder / "reports"
    details = json.loads((reports / "test" / "details.json").read_text())
    assert set(details["baselines"]) == {"bm25", "zero_shot"}
    assert details["shown"][0] == "ndcg_at_10"
    told = pq.read_table(reports / "test" / "predictions.parquet").to_pydict()
    metrics = json.loads((reports / "test" / "metrics.json").read_text())
    assert metrics["recall_at_1"] == pytest.approx(np.mean(np.array(told["place"]) == 1))
    write_csv(project.folder / "in.csv", [{"Query": query} for query in [*told["query"], " "]])
    project.run("finespun", "predict", "in.csv", "--output", "out.jsonl", "--top-k", "5")
    answers = [json.loads(line) for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert answers.pop()["error"] == "Query is empty"
    ranked = [[answer["item"], *(answer[f"item_{place}"] for place in range(2, 6))] for answer in answers]
    assert ranked == told["found"]
    project.run("finespun", "embed", "in.csv", "--output", "vectors.parquet")
    vectors = pq.read_table(project.folder / "vectors.parquet")["vector"].to_pylist()[:-1]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert "nDCG at 10" in project.run("finespun", "summary").stdout
    assert "BM25" in (reports / "index.html").read_text()
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        "print(list(model.predict(pd.read_csv('in.csv').head(4)).item))"
    )
    assert project.run("python", "-c", code).stdout.strip().splitlines()[-1] == str([row[0] for row in ranked[:4]])


@pytest.mark.slow
def test_histories_are_learnt_ranked_and_asked(tmp_path: Path, tiny_bert: Path) -> None:
    project = make_project(tmp_path / "project", tiny_bert)
    raw = project.folder / "data" / "raw"
    write_csv(raw / "events.csv", events())
    write_csv(raw / "items.csv", catalogue())
    (project.folder / "conf" / "data" / "films.yaml").write_text(
        "path: data/raw/events.csv\nevents: {user: who, item: what, time: when}\n"
        "items: {path: data/raw/items.csv, columns: {item: id, text: [title, kind]}}\n"
    )
    project.edit("params.yaml", data="films", task="item_recommendation")
    project.edit("conf/task/item_recommendation.yaml", width=16, layers=1, dropout=0.0, leave_out_seen=False, candidates=10)
    project.edit("conf/trainer/default.yaml", max_epochs=30)
    project.edit("conf/optimizer/adamw.yaml", lr=0.01)
    project.run("dvc", "repro")
    details = json.loads((project.folder / "reports" / "test" / "details.json").read_text())
    assert set(details["baselines"]) == {"popularity", "item_knn", "ease"}
    assert details["scores"]["recall_at_1"]["value"] > 0.9
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pydict()
    assert {"user", "popularity", "expected", "found"} <= set(told)
    assert "EASE" in (project.folder / "reports" / "index.html").read_text()
    rows = [{"who": "me", "history": [f"i{(start + step) % 10}" for step in range(4)]} for start in range(4)]
    (project.folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.run("finespun", "predict", "in.jsonl", "--output", "out.jsonl")
    found = [json.loads(line)["item"] for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert found == [f"i{start + 4}" for start in range(4)]
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        "print(list(model.predict(pd.read_json('in.jsonl', lines=True)[['history']]).item))"
    )
    assert project.run("python", "-c", code).stdout.strip().splitlines()[-1] == str(found)


@pytest.mark.slow
def test_who_will_leave_is_learnt_from_what_users_did(tmp_path: Path, tiny_bert: Path) -> None:
    project, draw = make_project(tmp_path / "project", tiny_bert), random.Random(4)
    leaving = [user % 2 for user in range(60)]
    visits = [
        {"customer": user, "page": draw.choice(["cancel", "refund"] if gone and day > 7 else ["music", "films"]),
         "action": "opened", "at": f"2024-01-{day:02}"}
        for user, gone in enumerate(leaving) for day in range(1, 11)
    ]  # fmt: skip
    after = [{"customer": user, "page": "goodbye", "action": "said", "at": "2024-02-01"} for user in range(0, 60, 2)]
    rows = [{"id": user, "left": "yes" if gone else "no", "asked": "2024-01-20"} for user, gone in enumerate(leaving)]
    write_csv(project.folder / "data" / "raw" / "visits.csv", visits + after)
    write_csv(project.folder / "data" / "raw" / "customers.csv", rows)
    (project.folder / "conf" / "data" / "customers.yaml").write_text(
        "path: data/raw/customers.csv\ncolumns: {text: history, label: left}\nlabels: null\n"
        "split: {train: 0.7, val: 0.15, test: 0.15, seed: 1}\n"
        "histories: {path: data/raw/visits.csv, user: customer, of: id, says: [page, action], time: at, before: asked}\n"
    )
    project.edit("params.yaml", data="customers", task="user_behaviour")
    project.edit("conf/task/user_behaviour.yaml", max_length=64)
    project.edit("conf/trainer/default.yaml", max_epochs=15)
    project.edit("conf/optimizer/adamw.yaml", lr=0.003)
    project.run("dvc", "repro")
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pydict()
    assert "goodbye" not in " ".join(told["text"])
    assert json.loads((project.folder / "reports" / "test" / "metrics.json").read_text())["f1_macro"] > 0.9
    write_csv(project.folder / "in.csv", [{"id": 0, "asked": "2024-01-20"}, {"id": 1, "asked": "2024-01-20"}])
    project.run("finespun", "predict", "in.csv", "--output", "out.jsonl")
    answers = [json.loads(line) for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert [answer["label"] for answer in answers] == ["no", "yes"]
    histories = ["music opened; films opened", "cancel opened; refund opened; music opened"]
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        f"print(list(model.predict(pd.DataFrame({{'history': {histories}}})).label))"
    )
    assert project.run("python", "-c", code).stdout.strip().splitlines()[-1] == "['no', 'yes']"
