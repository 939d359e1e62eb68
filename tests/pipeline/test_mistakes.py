"""Mistakes of users stop a stage before anything is lost, with a message and the exit code of their kind."""

from __future__ import annotations

import subprocess

from helpers import Project, real_rows, write_csv


def stage(project: Project, *names: str) -> subprocess.CompletedProcess[str]:
    done = project.run("python", "-m", "finespun.stages", *names, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_configuration_is_2(project: Project) -> None:
    project.edit("conf/trainer/default.yaml", max_epochs=0)
    done = stage(project, "configure")
    assert done.returncode == 2
    assert "conf/trainer/default.yaml: max_epochs: Input should be greater than 0 (it is 0)" in done.stderr
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode != 0


def test_data_is_3_and_all_rows_are_in_a_file(project: Project) -> None:
    rows = real_rows(200)
    for row in rows[:30]:
        row["text"] = ""
    rows[40]["sentiment"] = "postive"
    write_csv(project.folder / "data" / "raw" / "movie_reviews.csv", rows)
    done = stage(project, "configure", "prepare")
    assert done.returncode == 3
    assert "data/raw/movie_reviews.csv:2: text '': is empty" in done.stderr
    assert "data/raw/movie_reviews.csv:42: sentiment 'postive': is not one of negative, positive" in done.stderr
    problems = (project.folder / ".finespun" / "data_problems.csv").read_text()
    assert problems.count("empty_text") >= 29
    assert not (project.folder / "data" / "prepared" / "train.arrow").exists()


def test_a_model_is_4(project: Project) -> None:
    (project.folder / "conf" / "model" / "tiny.yaml").write_text("checkpoint: ./nowhere\n")
    done = stage(project, "configure", "prepare")
    assert done.returncode == 4
    assert "model.checkpoint: ./nowhere: there is no such folder" in done.stderr


def test_the_environment_is_5(project: Project) -> None:
    project.edit("conf/runtime/default.yaml", tracking_uri="http://127.0.0.1:9")
    done = stage(project, "configure", "prepare", "finetune")
    assert done.returncode == 5
    assert "runtime.tracking_uri: http://127.0.0.1:9 does not answer" in done.stderr


def test_a_folder_that_is_no_project_is_5(project: Project, tmp_path: object) -> None:
    done = subprocess.run(
        [project.run("which", "python").stdout.strip(), "-m", "finespun.stages", "configure"],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert "no finespun project here or above" in done.stderr
