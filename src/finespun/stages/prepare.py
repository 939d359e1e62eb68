"""prepare: the user's rows are checked, split, encoded and written as Arrow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import read_for_stage, to_plain
from finespun.config.sections import DataConfig, RunConfig
from finespun.data.cells import label_name
from finespun.data.check_report import Report
from finespun.data.dataset_checks.examine import Read, examine
from finespun.data.encode import Profile, beyond_limit, encode_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources import tables
from finespun.data.splits import SPLITS, Assigned
from finespun.data.writing import CsvWriter
from finespun.errors import DataError, first_of, listed
from finespun.failures import while_writing
from finespun.kept import file_digest, in_one_move, seal
from finespun.models.addresses import resolve
from finespun.stages import finished
from finespun.tasks.base import Encoder, Task
from finespun.tracking.earlier import localised
from finespun.tracking.lineage import input_digests, path_digest, require_unchanged, stage_digest


def run(artifacts: Artifacts) -> None:
    """Prepares into the project, or into a folder named by its inputs that all trials share."""
    config = read_for_stage(artifacts, "prepare")
    inputs = input_digests(artifacts, "prepare")
    digest = stage_digest(artifacts, "prepare", config, inputs)
    if finished.take(artifacts, "prepare", lambda: digest):
        return
    if artifacts.out == artifacts.project:
        with while_writing(artifacts.prepared):
            prepare(config, artifacts, artifacts.prepared)
            seal(artifacts.prepared)
    else:
        shared = artifacts.state / "prepared" / digest
        in_one_move(shared, lambda partial: prepare(config, artifacts, partial))
        artifacts.prepared.parent.mkdir(parents=True, exist_ok=True)
        if artifacts.prepared.is_symlink():
            artifacts.prepared.unlink()  # of an earlier trial in the same folder, which this one may take up
        artifacts.prepared.symlink_to(shared)
    require_unchanged(artifacts, "prepare", inputs)
    finished.keep(artifacts, "prepare", digest)


def prepare(config: RunConfig, artifacts: Artifacts, folder: Path) -> None:
    """Reads twice and more: first every row is checked, and nothing is written unless all is well."""
    data, path = spelt(config.data), artifacts.project / config.data.path
    task, encoder = task_and_encoder(config, artifacts)
    read = reader(data, artifacts)
    found = examine(read, data, task, encoder)
    report, known = found.report, found.labels
    _tell(report, artifacts.state / "data_problems.csv")
    require_rows(report, data)
    labels = task.label_names(known.names, data.columns)
    left_out = beyond_limit(read(), data, task, assigned=Assigned(report.kept, found.codes))
    for number in sorted(left_out):
        report.dropped.add(number, "limit")
    profile = encode_splits(
        read(), data=data, task=task, encoder=encoder, labels=labels, folder=folder, left_out=left_out,
        assigned=Assigned(report.kept, found.codes),
    )  # fmt: skip
    _require_trained(known.trained, profile, data)
    written = PreparedData(folder)
    task.fitted(written.open("train"), labels)
    for split, missing in profile.without_rows().items():
        remarks = [*task.remarks(written.open(split), labels)]
        if missing:
            remarks.append(
                f"no row of {first_of(missing)}: scores of this split say nothing of it; add rows, or raise its share"
            )
        profile.remarks[split] = remarks
    schema = {
        "name": path.stem,
        "source": {"path": data.path, "sha256": path_digest(path)},
        "columns": _columns(data, path),
        "labels": labels,
        "rows": {split: profile.rows[split] for split in SPLITS},
        "digests": {split: file_digest(folder / f"{split}.arrow") for split in SPLITS},
        "settings": to_plain(config, ["data"])["data"],
    }
    for name, content in (("profile", profile.plain(report)), ("schema", schema)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _print_warnings(profile)
    rows = ", ".join(f"{split} {profile.rows[split]:,}" for split in SPLITS)
    print(f"{data.path}: {report.rows:,} rows, {len(report.dropped.numbers):,} left out; {rows}; labels {first_of(labels, 20)}")  # noqa: T201


def task_and_encoder(config: RunConfig, artifacts: Artifacts) -> tuple[Task, Encoder]:
    """Returns the task, which reads files from where the data lie, and what it encodes with."""
    path = artifacts.project / config.data.path
    here = path if path.is_dir() else path.parent
    inside = (Path(path.anchor),) if config.data.allow_outside else (here, *artifacts.raw)
    task: Task = targets.build("task", config.task).reading_from(here, artifacts.project, inside=inside)
    model = localised(config.model, config.runtime, artifacts)
    return task, task.encoder(resolve(model, artifacts.project, weights=False))


def reader(data: DataConfig, artifacts: Artifacts) -> Read:
    """Returns what goes through the rows anew each time that it is called."""
    return partial(
        tables.read, artifacts.project / data.path, file_format=data.format, delimiter=data.delimiter,
        encoding=data.encoding, quoting=data.quoting, header=data.header,
    )  # fmt: skip


def _print_warnings(profile: Profile) -> None:
    for split, remarks in profile.remarks.items():
        for remark in remarks:
            print(f"warning: {split}: {remark}")  # noqa: T201
    if profile.truncated:
        share = f"{profile.truncated:,} of {sum(profile.rows.values()):,} rows are longer than task.max_length"
        print(f"warning: {share}: their ends are cut off; raise it where the model allows more")  # noqa: T201


def spelt(data: DataConfig) -> DataConfig:
    """Returns the section with its labels spelt as those of rows are.

    Raises:
        DataError: two of them are then the same.
    """
    names = tuple(map(label_name, data.labels or ()))
    twice = {name for name in names if names.count(name) > 1}
    if twice or "" in names:
        said = f"names {listed(map(repr, twice))} twice, in characters that look the same" if twice else "names an empty label"
        raise DataError(f"data.labels: {said}; name each label once")
    return data.model_copy(update={"labels": names or None})


def require_rows(report: Report, data: DataConfig) -> None:
    """Raises a DataError that says where all rows went, if none is left."""
    if len(report.kept):
        return
    went = [f"{count:,} by data.filters ({reason})" for reason, count in report.filtered.items()]
    went += [f"{count:,} by data.checks.{kind}: drop" for kind, count in report.counts("drop").items()]
    values = dict.fromkeys(problem.value for problem in report.problems if problem.kind == "unknown_label")
    if values:
        went.append(f"the rows say {first_of([*map(repr, values)])}, data.labels {first_of([*map(repr, data.labels or ())])}")
    raise DataError(f"{data.path}: none of {report.rows:,} rows is left: {'; '.join(went)}; correct what leaves them out")


def _require_trained(names: Sequence[str], profile: Profile, data: DataConfig) -> None:
    """Raises a DataError where `data.limit` left out all training rows of a label."""
    unseen = [name for name in names if not profile.labels["train"][name]]
    if unseen:
        raise DataError(f"{data.path}: data.limit leaves no training row of {first_of(unseen)}; raise it, or set per_label")


def _columns(data: DataConfig, path: Path) -> dict[str, Any]:
    """The columns that users of the model will be asked for; positions in a CoNLL file are no names for them."""
    if tables.format_of(path, data.format) == "conll":
        return {role: role for role in data.columns}
    return dict(data.columns)


def _tell(report: Report, path: Path) -> None:
    rows = [problem for problem in report.problems if problem.line]
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file)
            writer.row(["file", "row", "check", "severity", "column", "value", "remedy"])
            writer.rows([report.file, p.line, p.kind, p.severity, p.column, p.value, p.remedy] for p in rows)
    else:
        path.unlink(missing_ok=True)
    where = f"\nall of them: {path}" if rows else ""
    if report.counts("error"):
        head = f"{report.file}: rows need mending before training\n" if rows else f"{report.file}: "
        raise DataError(f"{head}{report.text('error')}{where}")
    if report.counts("warn"):
        print(f"warning: {report.text('warn')}{where}")  # noqa: T201
