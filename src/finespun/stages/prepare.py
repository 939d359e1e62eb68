"""prepare: the user's rows are checked, split, encoded and written as Arrow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.compose import declared_dependencies, read_for_stage, to_plain
from finespun.config.sections import DataConfig, RunConfig
from finespun.data.cells import as_text, label_name
from finespun.data.check_report import Report
from finespun.data.dataset_checks.examine import examine
from finespun.data.dataset_checks.left_out import write_dropped
from finespun.data.encode import Profile, beyond_limit, encode_each, write_splits
from finespun.data.passes.here import Rows, RowsHere
from finespun.data.passes.on_ray import RowsOnRay
from finespun.data.prepared import PreparedData
from finespun.data.related.items import item_names, source_of, write_items
from finespun.data.sources import tables
from finespun.data.sources.source import Source
from finespun.data.splits import SPLITS, Assigned
from finespun.data.writing import CsvWriter
from finespun.errors import DataError, first_of, listed
from finespun.failures import while_writing
from finespun.files import copy_or_link
from finespun.kept import FileDigests, damage, file_digest, in_one_move, make_way
from finespun.models.addresses import processor_folder
from finespun.stages import finished
from finespun.tasks.base import Encoder, Task, main_role
from finespun.tracking.earlier import localised
from finespun.tracking.lineage import path_digest, stage_digest


def run(artifacts: Artifacts) -> None:
    """Prepares into the project, or into a folder named by its inputs that all trials share.

    What was last prepared for the project is kept: a change in `data/raw` of files that are not read costs no more than a look.
    """
    config = read_for_stage(artifacts, "prepare")
    source = Source(spelt(config.data), artifacts.project)
    inputs = _inputs(config, artifacts, source)
    digest = stage_digest(artifacts, "prepare", config, inputs)
    if finished.take(artifacts, "prepare", lambda: digest):
        return
    shared = artifacts.state / "prepared" / digest
    if artifacts.out == artifacts.project:
        last = artifacts.state / "last_prepared" / digest
        with while_writing(artifacts.prepared):
            if finished.by_dvc(artifacts) and _taken(artifacts.prepared, last, shared):
                return
            _in_place(artifacts.prepared, lambda partial: prepare(config, artifacts, partial, source))
            _keep(artifacts.prepared, last)
    else:
        in_one_move(shared, lambda partial: prepare(config, artifacts, partial, source), alone=True)
        artifacts.prepared.parent.mkdir(parents=True, exist_ok=True)
        if artifacts.prepared.is_symlink():
            artifacts.prepared.unlink()  # of an earlier trial in the same folder, which this one may take up
        artifacts.prepared.symlink_to(shared)
    if _inputs(config, artifacts, Source(source.declared, artifacts.project)) != inputs:
        name = source.declared.name
        raise DataError(f"{name}: it, or the code, changed while prepare ran, so the record would not be true; run it again")
    finished.keep(artifacts, "prepare", digest)


def _inputs(config: RunConfig, artifacts: Artifacts, source: Source) -> dict[str, str]:
    """Returns digests of all that is read: of `data/raw` only what is named, by the configuration or by rows."""
    raw = str(artifacts.raw[0].relative_to(artifacts.project))
    deps = [name for name in declared_dependencies(artifacts.pipeline, "prepare") if name != raw]
    found = {name: path_digest(artifacts.local(name)) for name in deps}
    source.file_digests = digests = FileDigests(artifacts.state / "file_digests.json")
    found["source"] = source.digest()
    task = task_of(config, artifacts)
    if main_role(task) == "image":
        found["runtime.image_cache_gb"] = str(config.runtime.image_cache_gb)  # which says whether pixels are kept
    files = _named_files(source, task)
    named = {os.path.relpath(path, artifacts.project): digests(path) for path in files}
    items, histories = source.declared.items, source.declared.histories
    if histories:
        found["histories"] = path_digest(artifacts.project / histories.path)
    if items:
        found["items"] = source_of(items, artifacts.project).digest()
    if named:
        found["files that rows name"] = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    digests.save()
    return found


def _named_files(source: Source, task: Task) -> Iterator[Path]:
    """Yields the files that rows name and the source's own digest does not cover."""
    data = source.data
    files = [] if data.hub or data.sql else [part for part, _ in source.parts]
    if main_role(task) == "text" or (files and all(tables.format_of(part, data.format) == "images" for part in files)):
        return
    columns = {role: column for role, column in data.columns.items() if isinstance(column, str)}
    for line in source():
        yield from task.files({role: as_text(line.row.get(column)) for role, column in columns.items()})


def _taken(target: Path, *kept: Path) -> bool:
    """Puts prepared data in their place that were made of the very same inputs; False where there are none."""
    found = next((folder for folder in kept if folder.is_dir() and damage(folder) is None), None)
    if found is None:
        return False
    print("prepare: nothing that it reads has changed; what was prepared before is taken")  # noqa: T201
    _in_place(target, lambda partial: _copy(found, partial))
    return True


def _in_place(target: Path, fill: Callable[[Path], object]) -> None:
    """Fills a folder that is then there as a whole; what was there before goes."""
    if target.is_symlink():
        target.unlink()
    make_way(target)
    in_one_move(target, fill)


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        copy_or_link(path, target / path.name)


def _keep(prepared: Path, last: Path) -> None:
    """Keeps what was prepared, in place of what was kept before."""
    shutil.rmtree(last.parent, ignore_errors=True)
    in_one_move(last, lambda partial: _copy(prepared, partial))


def prepare(config: RunConfig, artifacts: Artifacts, folder: Path, source: Source | None = None) -> None:
    """Reads twice and more: first every row is checked, and nothing is written unless all is well."""
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what is freed: memory would grow with the rows
    source = source or Source(spelt(config.data), artifacts.project)
    data = source.data
    task, encoder = task_and_encoder(config, artifacts)
    for note in source.notes:
        print(f"warning: {note}")  # noqa: T201
    rows = _rows(source, config)
    found = examine(rows, data, task, encoder)
    report, known = found.report, found.labels
    _tell(report, artifacts.state / "data_problems.csv")
    require_rows(report, data)
    labels = item_names(source) if data.events else task.label_names(known.names, data.columns)
    left_out = beyond_limit(source(), data, task, assigned=Assigned(report.kept, found.codes))
    for number in sorted(left_out):
        report.dropped.add(number, "limit")
    task = _kept_within(config, task, len(report.kept) - len(left_out), encoder)
    encode = partial(
        encode_each, data=data, task=task, encoder=encoder, labels=labels, left_out=left_out,
        assigned=Assigned(report.kept, found.codes),
    )  # fmt: skip
    profile = write_splits(rows.map(encode, "encoding"), data, task, folder)
    _require_trained(known.trained, profile, data)
    written = PreparedData(folder)
    task.fitted(written.open("train"), labels)
    write_items(task, encoder, source, labels, written)
    for split, missing in profile.without_rows().items():
        remarks = [*task.remarks(written.open(split), labels)]
        if missing:
            remarks.append(
                f"no row of {first_of(missing)}: scores of this split say nothing of it; add rows, or raise its share"
            )
        profile.remarks[split] = remarks
    schema = {
        "name": _called(Path(data.name)),
        "source": {"path": data.name, "sha256": source.digest()},
        "columns": _columns(source),
        "labels": labels,
        "rows": {split: profile.rows[split] for split in SPLITS},
        "digests": {split: file_digest(folder / f"{split}.arrow") for split in SPLITS},
        "settings": to_plain(config.model_copy(update={"data": data}), ["data"])["data"],
    }
    write_dropped(report, folder / "dropped.parquet")
    for name, content in (("profile", profile.plain(report)), ("schema", schema)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _print_warnings(profile)
    _tell_counts(report, profile, data, labels)


def _called(path: Path) -> str:
    """Returns what the data are called: a file, or the folder of files that are called as splits are."""
    return path.parent.name if path.stem in SPLITS and path.parent.name else path.stem


def _kept_within(config: RunConfig, task: Task, rows: int, encoder: Encoder) -> Task:
    found, said = task.kept_within(config.runtime.image_cache_gb * 1e9, rows, encoder)
    if said:
        print(f"prepare: {said}")  # noqa: T201
    return found


def _rows(source: Source, config: RunConfig) -> Rows:
    """Returns what goes through the rows: this process, or a cluster."""
    whole = source.declared.events or source.declared.histories  # rows are made of all events
    if config.runtime.prepare_with == "ray" and not whole:
        return RowsOnRay(source)
    return RowsHere(source, bars=config.runtime.progress_bar)


def task_of(config: RunConfig, artifacts: Artifacts) -> Task:
    """Returns the task, which reads files from where the data lie."""
    given = [*config.data.path.values()] if isinstance(config.data.path, dict) else [config.data.path]
    paths = [artifacts.project / path for each in given for path in ([each] if isinstance(each, str) else each)]
    folders = {path if path.is_dir() else path.parent for path in paths}
    here = folders.pop() if len(folders) == 1 else artifacts.raw[0]
    inside = (Path(here.anchor),) if config.data.allow_outside else (here, *artifacts.raw)
    task: Task = targets.build("task", config.task).reading_from(here, artifacts.project, inside=inside)
    return task


def task_and_encoder(config: RunConfig, artifacts: Artifacts) -> tuple[Task, Encoder]:
    """Returns the task, and what it encodes with."""
    task = task_of(config, artifacts)
    model = localised(config.model, config.runtime, artifacts)
    return task, task.encoder(processor_folder(model, artifacts.project))


def _tell_counts(report: Report, profile: Profile, data: DataConfig, labels: Sequence[str]) -> None:
    rows = ", ".join(f"{split} {profile.rows[split]:,}" for split in SPLITS)
    said = f"{data.name}: {report.rows:,} rows, {len(report.dropped.numbers):,} left out; {rows}; labels {first_of(labels, 20)}"
    print(said)  # noqa: T201


def _print_warnings(profile: Profile) -> None:
    for split, remarks in profile.remarks.items():
        for remark in remarks:
            print(f"warning: {split}: {remark}")  # noqa: T201
    if profile.truncated:
        limit = "task.seconds" if profile.unit == "frames_of_20ms" else "task.max_length"
        share = f"{profile.truncated:,} of {sum(profile.rows.values()):,} rows are longer than {limit}"
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
    raise DataError(f"{data.name}: none of {report.rows:,} rows is left: {'; '.join(went)}; correct what leaves them out")


def _require_trained(names: Sequence[str], profile: Profile, data: DataConfig) -> None:
    """Raises a DataError where `data.limit` left out all training rows of a label."""
    unseen = [name for name in names if not profile.labels["train"][name]]
    if unseen:
        raise DataError(f"{data.name}: data.limit leaves no training row of {first_of(unseen)}; raise it, or set per_label")


def _columns(source: Source) -> dict[str, Any]:
    """The columns that users of the model will be asked for; positions in a CoNLL file are no names for them."""
    data, files = source.declared, [] if source.declared.hub or source.declared.sql else source.parts
    if files and tables.format_of(files[0][0], data.format) == "conll":
        return {role: role for role in data.columns}
    return dict(data.columns)


def _tell(report: Report, path: Path) -> None:
    rows = (problem for problem in report.problems if problem.line)
    first = next(rows, None)
    if first is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file)
            writer.row(["file", "row", "check", "severity", "column", "value", "remedy"])
            for each in chain([first], rows):
                writer.row([*report.where(each.line), each.kind, each.severity, each.column, each.value, each.remedy])
    else:
        path.unlink(missing_ok=True)
    where = f"\nall of them: {path}" if first else ""
    if report.counts("error"):
        head = f"{report.file}: rows need mending before training\n" if first else f"{report.file}: "
        raise DataError(f"{head}{report.text('error')}{where}")
    if report.counts("warn"):
        print(f"warning: {report.text('warn')}{where}")  # noqa: T201
