"""Tasks that rank, through the real pipeline as docs/ says it: prepare to report, prediction, vectors, the MLflow model."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from embedders import pairs
from helpers import ROOT, Project, make_project, write_csv
from recommenders import catalogue, events


class Page:
    """A page of docs/, done in a project as its reader would: a tiny model stands for the one that it names."""

    def __init__(self, name: str, project: Project) -> None:
        self.text, self.project = (ROOT / "docs" / name).read_text(encoding="utf-8"), project

    def configure(self, path: str, *more: str, **params: str) -> None:
        """Writes a file of conf/ as the page has it, with further lines."""
        (said,) = re.findall(rf"`{path}`[:,].*?```(?:yaml)?\n(.*?)```", self.text, re.DOTALL)
        (self.project.folder / path).write_text("\n".join([said, *more]))
        self.project.edit("params.yaml", **params)

    def params(self) -> dict[str, str]:
        """What the page writes into params.yaml, with another model."""
        (said,) = re.findall(r"after `params.yaml` says\n\n```yaml\n(.*?)```", self.text, re.DOTALL)
        return {**yaml.safe_load(said), "model": "tiny"}

    def commands(self) -> list[list[str]]:
        (said,) = re.findall(r"```\n(dvc repro\n.*?)```", self.text, re.DOTALL)
        return [line.split() for line in said.splitlines()]


def embedding_page(folder: Path, model: Path) -> Page:
    page = Page("embeddings.md", make_project(folder, model))
    raw = page.project.folder / "data" / "raw"
    write_csv(raw / "news.csv", [{"title": row["text"], "text": row["positive"]} for row in pairs(90)])
    write_csv(raw / "articles.csv", [{"body": f"another text of number {n}"} for n in range(20)])
    (items,) = re.findall(r"```yaml\n(items: .*?)```", page.text, re.DOTALL)
    page.configure("conf/data/news.yaml", items, "split: {train: 0.7, val: 0.15, test: 0.15, seed: 1}", **page.params())
    page.project.edit("conf/task/text_embedding.yaml", max_length=48)
    return page


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "mined"), [("full", 0), ("lora", 2)])
def test_texts_are_embedded_ranked_and_found(strategy: str, mined: int, tmp_path: Path, tiny_bert: Path) -> None:
    page = embedding_page(tmp_path / "project", tiny_bert)
    project, (repro, summary, predict, embed) = page.project, page.commands()
    project.edit("params.yaml", strategy=strategy)
    project.edit("conf/task/text_embedding.yaml", hard_negatives=mined)
    project.run(*repro)
    reports = project.folder / "reports"
    details = json.loads((reports / "test" / "details.json").read_text())
    assert set(details["baselines"]) == {"bm25", "zero_shot"}
    assert details["shown"][0] == "ndcg_at_10"
    told = pq.read_table(reports / "test" / "predictions.parquet").to_pydict()
    metrics = json.loads((reports / "test" / "metrics.json").read_text())
    assert metrics["recall_at_1"] == pytest.approx(np.mean(np.array(told["place"]) == 1))
    write_csv(project.folder / "titles.csv", [{"title": query} for query in [*told["query"], " "]])
    project.run(*predict)
    with (project.folder / "found.csv").open(newline="") as file:
        answers = [*csv.DictReader(file)]
    assert answers.pop()["error"] == "title is empty"
    ranked = [[answer["item"], answer["item_2"], answer["item_3"]] for answer in answers]
    assert ranked == [found[:3] for found in told["found"]]
    project.run(*embed)
    vectors = pq.read_table(project.folder / "vectors.parquet")["vector"].to_pylist()[:-1]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert "nDCG at 10" in project.run(*summary).stdout
    assert "BM25" in (reports / "index.html").read_text()
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        "print(list(model.predict(pd.read_csv('titles.csv').head(4)).item))"
    )
    assert project.run("python", "-c", code).stdout.strip().splitlines()[-1] == str([row[0] for row in ranked[:4]])


@pytest.mark.slow
def test_histories_are_learnt_ranked_and_asked(tmp_path: Path, tiny_bert: Path) -> None:
    page = Page("recommendation.md", make_project(tmp_path / "project", tiny_bert))
    project, (repro, summary, predict) = page.project, page.commands()
    raw = project.folder / "data" / "raw"
    write_csv(
        raw / "ratings.csv", [{"user_id": row["who"], "item_id": row["what"], "timestamp": row["when"]} for row in events()]
    )
    films = [{"item_id": row["id"], "title": row["title"], "year": 1990, "genres": row["kind"]} for row in catalogue()]
    write_csv(raw / "films.csv", films)
    page.configure("conf/data/films.yaml", **page.params())
    project.edit("conf/task/item_recommendation.yaml", width=16, layers=1, dropout=0.0, leave_out_seen=False, candidates=10)
    project.edit("conf/trainer/default.yaml", max_epochs=30)
    project.edit("conf/optimizer/adamw.yaml", lr=0.01)
    project.run(*repro)
    assert "nDCG at 10" in project.run(*summary).stdout
    details = json.loads((project.folder / "reports" / "test" / "details.json").read_text())
    assert set(details["baselines"]) == {"popularity", "item_knn", "ease", "als"}
    assert details["scores"]["recall_at_1"]["value"] > 0.9
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pydict()
    assert {"user", "popularity", "expected", "found"} <= set(told)
    assert "EASE" in (project.folder / "reports" / "index.html").read_text()
    rows = [{"who": "me", "history": [f"i{(start + step) % 10}" for step in range(4)]} for start in range(4)]
    (project.folder / "histories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.run(*predict)
    found = pq.read_table(project.folder / "recommended.parquet")["item"].to_pylist()
    assert found == [f"i{start + 4}" for start in range(4)]
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        "print(list(model.predict(pd.read_json('histories.jsonl', lines=True)[['history']]).item))"
    )
    assert project.run("python", "-c", code).stdout.strip().splitlines()[-1] == str(found)


@pytest.mark.slow
def test_who_will_leave_is_learnt_from_what_users_did(tmp_path: Path, tiny_bert: Path) -> None:
    page, draw = Page("recommendation.md", make_project(tmp_path / "project", tiny_bert)), random.Random(4)
    project = page.project
    leaving = [user % 2 for user in range(60)]
    visits = [
        {"customer": user, "page": draw.choice(["cancel", "refund"] if gone and day > 7 else ["music", "films"]),
         "action": "opened", "at": f"2024-01-{day:02}"}
        for user, gone in enumerate(leaving) for day in range(1, 11)
    ]  # fmt: skip
    after = [{"customer": user, "page": "goodbye", "action": "said", "at": "2024-02-01"} for user in range(0, 60, 2)]
    one = {"plan": "monthly", "asked_at": "2024-01-20"}
    rows = [{"id": user, "left": "yes" if gone else "no", **one} for user, gone in enumerate(leaving)]
    write_csv(project.folder / "data" / "raw" / "visits.csv", visits + after)
    write_csv(project.folder / "data" / "raw" / "customers.csv", rows)
    split = "split: {train: 0.7, val: 0.15, test: 0.15, seed: 1}"
    page.configure("conf/data/customers.yaml", split, data="customers", task="user_behaviour")
    project.edit("conf/task/user_behaviour.yaml", max_length=64)
    project.edit("conf/trainer/default.yaml", max_epochs=15)
    project.edit("conf/optimizer/adamw.yaml", lr=0.003)
    project.run("dvc", "repro")
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pydict()
    assert "goodbye" not in " ".join(told["text"])
    assert json.loads((project.folder / "reports" / "test" / "metrics.json").read_text())["f1_macro"] > 0.9
    write_csv(project.folder / "new_customers.csv", [{"id": 0, **one}, {"id": 1, **one}])
    (said,) = re.findall(r"`(finespun predict new_customers.csv[^`]*)`", page.text)
    answers = [*csv.DictReader(project.run(*said.split()).stdout.splitlines())]
    assert [answer["label"] for answer in answers] == ["no", "yes"]
    asked = {"history": ["music opened; films opened", "cancel opened; refund opened; music opened"], "plan": ["monthly"] * 2}
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        f"print(list(model.predict(pd.DataFrame({asked})).label))"
    )
    assert project.run("python", "-c", code).stdout.strip().splitlines()[-1] == "['no', 'yes']"
