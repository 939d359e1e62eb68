"""The README's "your own data", executed as it is written there."""

from __future__ import annotations

import csv
import json
import re

from yaml import safe_load

from helpers import ROOT, Project, real_rows, write_csv


def test_the_lines_of_the_readme_make_a_model_of_other_data(project: Project) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your own data\n")[2].partition("\n## ")[0]
    yaml = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[0]
    assert len(yaml.splitlines()) <= 5
    queues = ("billing", "technical", "other")
    rows = [{"id": row["id"], "body": row["text"], "queue": queues[int(row["id"]) % 3]} for row in real_rows(150)]
    write_csv(project.folder / "tickets.csv", rows)
    assert "finespun init tickets.csv" in section
    project.run("finespun", "init", "tickets.csv")
    proposed = project.folder / "conf" / "data" / "tickets.yaml"
    columns = safe_load(yaml)["columns"]
    assert safe_load(proposed.read_text())["columns"] == columns, "what it writes, and by hand, is the same"
    assert safe_load((project.folder / "params.yaml").read_text())["data"] == "tickets"
    proposed.write_text(yaml)
    project.edit("conf/trainer/default.yaml", max_epochs=1)
    stages = ("configure", "prepare", "finetune", "evaluate", "test")
    project.run("python", "-m", "finespun.stages", *stages)
    config = json.loads((project.folder / "models" / "finetuned" / "config.json").read_text())
    assert set(config["label2id"]) == set(queues), "labels are those found"
    record = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())
    assert record["reading"] == {"delimiter": ",", "encoding": "utf-8", "quoting": "auto"}, "new rows are read as these were"
    project.run("finespun", "predict", "data/raw/tickets.csv", "--output", "scored.csv")
    with (project.folder / "scored.csv").open(newline="", encoding="utf-8") as file:
        scored = list(csv.DictReader(file))
    assert [{name: row[name] for name in ("id", "body", "queue")} for row in scored] == rows
    assert {row["label"] for row in scored} <= set(queues)
