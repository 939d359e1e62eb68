"""Images through the real pipeline: from an image folder to answers that are those of plain transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from helpers import ROOT, Project, make_project, write_csv, write_digits


def served(project: Project, paths: list[str]) -> pd.DataFrame:
    """What the MLflow model says, asked in a process of its own."""
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model'); rows = pd.DataFrame({{'file': {paths!r}}});"
        "model.predict(rows).to_json('answers.json', orient='records');"
        f"import base64, pathlib; data = pathlib.Path({paths[0]!r}).read_bytes();"
        "given = [data, base64.b64encode(data).decode() if len(data) > 200 else data];"
        "found = model.predict(pd.DataFrame({'file': given}))['probability'];"
        "assert abs(found - model.predict(rows)['probability'][0]).max() < 1e-5, found;"
        "model.predict(model.input_example).to_json('example.json', orient='records')"
    )
    project.run("python", "-c", code)
    assert len(pd.read_json(project.folder / "example.json", orient="records")["label"]) == 3
    return pd.read_json(project.folder / "answers.json", orient="records")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_net: Path) -> Project:
    """A project after one `dvc repro` on 200 real digits, with augmentation and without any Python written."""
    project = make_project(tmp_path_factory.mktemp("images") / "project", tiny_bert)
    shutil.copytree(tiny_net, project.folder / "data" / "tiny-net")
    (project.folder / "conf" / "model" / "tiny_net.yaml").write_text("checkpoint: data/tiny-net\n")
    write_digits(project.folder / "data" / "raw" / "digits", 200)
    project.edit("params.yaml", data="digits", task="image_classification", model="tiny_net")
    project.edit("conf/task/image_classification.yaml", image_size=24, augmentation__rotation=10.0)
    project.run("dvc", "repro")
    return project


def plain(project: Project, paths: list[str]) -> list[tuple[str, float]]:
    """Labels and probabilities by nothing but transformers."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.image_utils import load_image

    folder = project.folder / "models" / "finetuned"
    model, processor = (
        each.from_pretrained(folder) for each in (AutoModelForImageClassification, AutoImageProcessor)
    )  # fmt: skip
    images = [load_image(str(project.folder / path)) for path in paths]
    with torch.no_grad():
        chances = model.eval()(**processor(images, return_tensors="pt")).logits.softmax(-1)
    return [(model.config.id2label[int(each.argmax())], float(each.max())) for each in chances]


def some(project: Project) -> list[str]:
    return [
        path.relative_to(project.folder).as_posix() for path in sorted((project.folder / "data/raw/digits").rglob("*.png"))
    ][::7]


def test_the_reports_are_about_images(digits: Project) -> None:
    told = pq.read_table(digits.folder / "reports" / "test" / "predictions.parquet").to_pandas()
    metrics = json.loads((digits.folder / "reports/test/metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx((told["label"] == told["predicted"]).mean())
    assert all((digits.folder / "data/raw/digits" / name).is_file() for name in told["image"])
    details = json.loads((digits.folder / "reports/test/details.json").read_text())
    assert set(details["baselines"]) == {"majority_class", "pixels_logistic"}
    assert (digits.folder / "reports" / "evaluation" / "confusion.png").stat().st_size > 10_000
    assert "pixels + logistic regr." in digits.run("finespun", "summary").stdout
    assert json.loads((digits.folder / "data/prepared/profile.json").read_text())["patches_of_16x16"]["max"] == 3
    saved = json.loads((digits.folder / "models/finetuned/preprocessor_config.json").read_text())
    assert (saved["crop_size"], saved["size"]) == ({"height": 24, "width": 24}, {"shortest_edge": 27})


def test_answers_are_those_of_plain_transformers(digits: Project) -> None:
    paths = some(digits)
    write_csv(
        digits.folder / "data" / "raw" / "in.csv", [{"id": path[-8:], "file": path.removeprefix("data/raw/")} for path in paths]
    )
    digits.run("finespun", "predict", "data/raw/in.csv", "--output", "out.csv", "--top-k", "2")
    found = pd.read_csv(digits.folder / "out.csv", dtype={"label": str, "label_2": str})
    expected = plain(digits, paths)
    assert found["label"].tolist() == [label for label, _ in expected]
    assert found["probability"].tolist() == pytest.approx([chance for _, chance in expected], abs=1e-5)
    assert (found["label"] != found["label_2"]).all()
    listed = subprocess.run(
        [Path(sys.executable).parent / "finespun", "predict", "-"], cwd=digits.folder, input="\n".join(paths), text=True,
        capture_output=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert [line.split(",")[1] for line in listed[1:]] == found["label"].tolist()
    answers = served(digits, [str(digits.folder / path) for path in paths])
    assert answers["probability"].tolist() == pytest.approx(found["probability"].tolist(), abs=1e-5)


def test_a_folder_with_bad_files_is_answered_all_the_same(digits: Project) -> None:
    folder = digits.folder / "inbox"
    (folder / "deep").mkdir(parents=True)
    shutil.copyfile(digits.folder / some(digits)[0], folder / "deep" / "Ä.PNG")
    Image.new("I;16", (9, 30), 40_000).save(folder / "grey.png")
    (folder / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (folder / "notes.txt").write_text("not an image")
    done = digits.run("finespun", "predict", "inbox", "--output", "out.jsonl")
    rows = {row["image"]: row for row in map(json.loads, (digits.folder / "out.jsonl").read_text().splitlines())}
    assert "4 rows -> out.jsonl, 2 of them could not be predicted" in done.stderr
    assert rows["inbox/notes.txt"]["error"].startswith("image is no image of a known kind")
    assert rows["inbox/half.jpg"]["error"]
    assert rows["inbox/deep/Ä.PNG"]["label"] == plain(digits, some(digits)[:1])[0][0]
    assert not rows["inbox/grey.png"]["error"]
    strict = digits.run("finespun", "predict", "inbox", "--output", "out.jsonl", "--strict", check=False)
    assert strict.returncode == 3
    assert "finespun predict: inbox/half.jpg: image is damaged (Truncated File Read); mend the row" in strict.stderr


def test_bad_images_stop_before_training(digits: Project, tmp_path: Path) -> None:
    project = digits.copy(tmp_path / "project")
    (project.folder / "data/raw/digits/3/broken.png").write_bytes(b"no image")
    done = project.run("dvc", "repro", check=False)
    assert "file '3/broken.png': is no image of a known kind" in done.stdout + done.stderr
    assert "finetune" not in project.stages_run(done.stdout)
    project.edit("conf/data/digits.yaml", checks={"bad_image": "drop"})
    done = project.run("dvc", "repro", "prepare")
    assert "201 rows, 1 left out" in done.stdout


def test_the_shipped_script_makes_the_digits(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "data" / "raw" / "digits.py", tmp_path / "digits.py")
    subprocess.run([sys.executable, "digits.py"], cwd=tmp_path, check=True)
    files = list((tmp_path / "digits").rglob("*.png"))
    assert len(files) == 1797
    assert {path.parent.name for path in files} == set("0123456789")
    some_digit = Image.open(tmp_path / "digits" / "0" / "0000.png")
    assert (some_digit.size, some_digit.mode, some_digit.getextrema()) == ((8, 8), "L", (0, 239))


@pytest.mark.slow
def test_an_image_is_explained_and_the_report_shows_the_worst_with_their_heat(digits: Project) -> None:
    pytest.importorskip("captum")
    [path, *_] = some(digits)
    said = digits.run("finespun", "explain", path, "-o", "heat.png").stdout
    assert len([line for line in said.splitlines() if line.startswith("  ")]) == 8, "a grid of fields"
    assert "heat.png: warm fields speak for" in said
    with Image.open(digits.folder / "heat.png") as heat:
        assert heat.size == (96, 96)
    row = pq.read_table(digits.folder / "reports" / "test" / "predictions.parquet")["row"][0].as_py()
    assert "in random orders" in digits.run("finespun", "explain", "--row", str(row)).stdout
    digits.run("finespun", "run", "evaluation.explain=2", "hydra.run.dir=explained")
    page = Path(digits.run("finespun", "report", "explained").stdout.strip()).read_text()
    worst = json.loads((digits.folder / "explained/reports/evaluation/details.json").read_text())["worst"]
    assert [number for number, each in enumerate(worst) if "explanation" in each] == [0, 1]
    assert all(len(each["neighbours"]) == 3 and each["picture"] in page for each in worst)
    assert worst[0]["explanation"]["picture"] in page
