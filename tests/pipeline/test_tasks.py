"""Each kind of task through the real pipeline, on real rows: prepare to test, prediction, the MLflow model."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import pearsonr
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import f1_score

from helpers import ROOT, Project, make_project, real_rows, write_csv


def metrics(project: Project, folder: str = "test") -> dict[str, float]:
    return dict(json.loads((project.folder / "reports" / folder / "metrics.json").read_text()))


def served(project: Project, rows: pd.DataFrame) -> pd.DataFrame:
    """What the MLflow model says, asked in a process of its own."""
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    rows.to_json(project.folder / "rows.json", orient="records")
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        "model.predict(pd.read_json('rows.json', orient='records')).to_json('answers.json', orient='records')"
    )
    project.run("python", "-c", code)
    return pd.read_json(project.folder / "answers.json", orient="records")


@pytest.mark.slow
def test_numbers(tmp_path: Path, tiny_bert: Path) -> None:
    project = make_project(tmp_path / "project", tiny_bert)
    project.edit("params.yaml", data="movie_ratings", task="text_regression")
    project.edit("conf/task/text_regression.yaml", max_length=48)
    project.run("dvc", "repro")
    found = metrics(project)
    assert {"pearson", "spearman", "rmse", "r2", "mae"} <= set(found)
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pandas()
    assert found["pearson"] == pytest.approx(pearsonr(told["rating"], told["predicted_rating"]).statistic, abs=1e-6)
    assert {"mean", "tfidf_ridge"} == set(json.loads((project.folder / "reports/test/details.json").read_text())["baselines"])
    texts = [row["text"] for row in real_rows(5)]
    write_csv(project.folder / "in.csv", [{"text": text} for text in texts])
    project.run("finespun", "predict", "in.csv", "--output", "out.jsonl")
    answers = [json.loads(line)["predicted_rating"] for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert answers == pytest.approx(plain(project.folder / "models/finetuned", texts)[:, 0].tolist(), abs=1e-5)
    assert served(project, pd.DataFrame({"text": texts}))["predicted_rating"].tolist() == pytest.approx(answers, abs=1e-5)
    assert "pearson" in project.run("finespun", "summary").stdout


@pytest.mark.slow
def test_entities(tmp_path: Path, tiny_bert: Path) -> None:
    project = make_project(tmp_path / "project", tiny_bert)
    shutil.copyfile(ROOT / "tests" / "data" / "entities.conll", project.folder / "data" / "raw" / "entities.conll")
    (project.folder / "conf" / "data" / "entities.yaml").write_text(
        "path: data/raw/entities.conll\ncolumns: {text: 1, tags: 2}\n"
    )
    project.edit("params.yaml", data="entities", task="token_classification")
    project.edit("conf/task/token_classification.yaml", max_length=24, stride=8)
    project.edit("conf/trainer/default.yaml", max_epochs=10, batch_size=16)
    project.edit("conf/optimizer/adamw.yaml", lr=0.01)
    project.run("dvc", "repro")
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pydict()
    assert metrics(project)["f1"] == pytest.approx(entity_f1(told["tags"], told["predicted"]), abs=1e-6)
    assert metrics(project)["f1"] > 0
    assert "usual tag of word" in project.run("finespun", "summary").stdout
    sentences = [*sorted(told["words"], key=len)[:6], [*chain(*told["words"])]]  # the last is longer than the model's positions
    rows = [{"text": words} for words in sentences] + [{"text": " ".join(words)} for words in sentences] + [{"text": " "}]
    (project.folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.run("finespun", "predict", "in.jsonl", "--output", "out.jsonl", "--top-k", "3")
    answers = [json.loads(line) for line in (project.folder / "out.jsonl").read_text().splitlines()]
    assert answers.pop()["error"] == "text is empty"
    assert [answer["entities"] for answer in answers[:6]] == [answer["entities"] for answer in answers[7:13]]
    plain = [plain_tags(project.folder / "models/finetuned", words, longest=24) for words in sentences]
    assert [each is None for each in plain] == [False] * 6 + [True]
    assert [answer["tags"] for answer in answers[:6]] == plain[:6]
    assert answers[6]["tags"][20:] != ["O"] * (len(sentences[6]) - 20)
    entities = [each for answer in answers for each in answer["entities"]]
    texts = [" ".join(row["text"]) for row in rows[:7]]
    assert {each["label"] for each in entities} <= {"DATE", "LOC", "ORG", "PER"}
    assert all(each["text"] == texts[number % 7][each["start"] : each["end"]]
               for number, answer in enumerate(answers) for each in answer["entities"])  # fmt: skip
    for part in (slice(7), slice(7, 14)):  # lists of words; texts
        found = served(project, pd.DataFrame(rows[part]))["entities"]
        for ours, theirs in zip(chain(*found), chain(*(answer["entities"] for answer in answers[part])), strict=True):
            assert ours == theirs | {"score": pytest.approx(theirs["score"], abs=1e-5)}


def plain_tags(folder: Path, words: list[str], *, longest: int) -> list[str] | None:
    """Tags by nothing but transformers: those of the first sub-words, for a sentence that is one window."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    encoded = AutoTokenizer.from_pretrained(folder)(words, is_split_into_words=True, return_tensors="pt")
    if encoded["input_ids"].shape[1] > longest:
        return None
    with torch.no_grad():
        best = model(**encoded).logits[0].argmax(dim=1).tolist()
    return [model.config.id2label[best[encoded.word_ids().index(number)]] for number in range(len(words))]


def tags(row: dict[str, str]) -> list[str]:
    given = {"good": row["sentiment"] == "positive", "long": len(row["text"]) > 100, "film": "film" in row["text"]}
    return [tag for tag, holds in given.items() if holds]


@pytest.mark.slow
def test_sets_of_labels_of_pairs_of_texts(tmp_path: Path, tiny_bert: Path) -> None:
    project = make_project(tmp_path / "project", tiny_bert)
    real = real_rows(200)
    rows = [
        {"review": row["text"], "reply": real[number * 7 % 200]["text"][:40], "tags": ";".join(tags(row))}
        for number, row in enumerate(real)
    ]
    write_csv(project.folder / "data" / "raw" / "tagged.csv", rows)
    (project.folder / "conf" / "data" / "tagged.yaml").write_text(
        "path: data/raw/tagged.csv\ncolumns: {text: review, text_pair: reply, labels: tags}\nchecks: {duplicate: warn}\n"
    )
    project.edit("params.yaml", data="tagged", task="multi_label")
    project.edit("conf/task/multi_label.yaml", max_length=48)
    project.run("dvc", "repro")
    told = pq.read_table(project.folder / "reports" / "test" / "predictions.parquet").to_pandas()
    labels = ["film", "good", "long"]
    sets = [[[label in set(row) for label in labels] for row in told[name]] for name in ("labels", "predicted")]
    assert metrics(project)["f1_macro"] == pytest.approx(f1_score(*sets, average="macro", zero_division=0), abs=1e-6)
    config = json.loads((project.folder / "models" / "finetuned" / "config.json").read_text())
    assert len(config["label_thresholds"]) == 3
    write_csv(project.folder / "in.csv", [{"review": row["review"], "reply": row["reply"]} for row in rows[:6]])
    project.run("finespun", "predict", "in.csv", "--output", "out.jsonl", "--top-k", "3")
    answers = [json.loads(line) for line in (project.folder / "out.jsonl").read_text().splitlines()]
    logits = plain(project.folder / "models/finetuned", [r["review"] for r in rows[:6]], [r["reply"] for r in rows[:6]])
    for answer, chances in zip(answers, logits.sigmoid().tolist(), strict=True):
        assert answer["probabilities"] == pytest.approx(dict(zip(labels, chances, strict=True)), abs=1e-5)
        assert set(answer["labels"]) == {
            label for label, chance, least in zip(labels, chances, config["label_thresholds"], strict=True) if chance >= least
        }


def plain(folder: Path, *texts: list[str]) -> torch.Tensor:
    """Logits by nothing but transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([
            model(**tokenizer(*each, truncation=True, return_tensors="pt")).logits for each in zip(*texts, strict=True)
        ])  # fmt: skip
