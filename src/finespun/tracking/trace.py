"""`finespun trace`: the chain from raw data to model and report, each link verified as far as its files are still there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow

from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.errors import DataError, MachineError
from finespun.evaluation.record import read_record
from finespun.files import read_json
from finespun.kept import file_digest
from finespun.masking import one_line
from finespun.tracking.client import Tracker, needed
from finespun.tracking.lineage import git, path_digest

RUN_ID = re.compile(r"[0-9a-f]{32}")
ALIAS = re.compile(r"(?:models:/)?([^/]+)@(\w+)")
COMMIT = re.compile(r"[0-9a-f]{7,40}")
State = Literal["ok", "gone", "differs"]


@dataclass(frozen=True)
class Link:
    """One link: what it is, what is known of it, and whether what is there agrees with what was recorded."""

    what: str
    said: str
    state: State = "ok"
    why: str = ""


def runs_of(given: str, tracker: Tracker, artifacts: Artifacts) -> list[mlflow.entities.Run]:
    """Returns the runs of a run id, a model's folder, an alias of the registry, a commit or a data file, the newest first.

    Raises:
        MachineError: there is none.
    """
    path = Path(given)
    if (path / "run.json").is_file():
        return [_run(tracker, str(read_record(path)["run_id"]))]
    if RUN_ID.fullmatch(given):
        return [_run(tracker, given)]
    if registered := ALIAS.fullmatch(given):
        with needed(f"{given}: MLflow's registry has no such alias", "`finespun register` gives them"):
            return [_run(tracker, str(tracker.client.get_model_version_by_alias(*registered.groups()).run_id))]
    if path.exists():
        digest = path_digest(path)
        found = _search(tracker, f"tags.data LIKE '%{digest[:12]}'")
        what = f"the data {given} (sha256 {digest[:12]}...)"
    elif COMMIT.fullmatch(given):
        whole = git(artifacts.project, "rev-parse", "--verify", "--quiet", f"{given}^{{commit}}").decode().strip() or given
        found, what = _search(tracker, f"tags.`mlflow.source.git.commit` LIKE '{whole}%'"), f"the commit {given}"
    else:
        raise MachineError(
            f"{given}: is no run id, folder of a model, NAME@ALIAS of the registry, commit or file; `finespun ui` shows the"
            " runs that there are"
        )
    if not found:
        raise MachineError(f"{given}: no run was made of {what}; `finespun ui` shows the runs that there are")
    return found


def _search(tracker: Tracker, rule: str) -> list[mlflow.entities.Run]:
    with needed("MLflow does not answer", "start it again"):
        return list(tracker.client.search_runs([tracker.experiment_id], rule, order_by=["attributes.start_time DESC"]))


def _run(tracker: Tracker, run_id: str) -> mlflow.entities.Run:
    with needed(f"MLflow does not know the run {run_id}", "`finespun ui` shows those that there are"):
        return tracker.client.get_run(run_id)


def chain(run: mlflow.entities.Run, tracker: Tracker, artifacts: Artifacts) -> Iterator[Link]:
    """Yields the links of a run from raw data to the registry."""
    lineage = _lineage(run)
    here = artifacts.finetuned / "run.json"
    ours = here.is_file() and read_record(artifacts.finetuned)["run_id"] == run.info.run_id
    yield from _data(run, lineage, artifacts, ours=ours)
    yield _config(run, lineage)
    yield _commit(lineage, artifacts)
    yield Link("run", f"{run.info.run_id} {run.info.run_name} ({run.info.status})")
    yield from _model(run, tracker, artifacts, ours=ours)
    yield from _reports(run, artifacts, ours=ours)
    yield from _registry(run, tracker)


def _lineage(run: mlflow.entities.Run) -> dict[str, Any]:
    with needed(
        f"run {run.info.run_id}: its lineage.json cannot be read", "it was made by an earlier finespun, or its files are gone"
    ):
        return dict(json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/lineage.json")))


def _data(run: mlflow.entities.Run, lineage: dict[str, Any], artifacts: Artifacts, *, ours: bool) -> Iterator[Link]:
    source = next((json.loads(each.dataset.source) for each in (run.inputs.dataset_inputs if run.inputs else ())), None)
    if source is not None:
        yield _file("raw data", artifacts.project / source["uri"], source["uri"], source["sha256"], strict=ours)
    for name, digest in lineage["inputs"].items():
        if name.startswith("data/prepared/"):
            yield _file("prepared", artifacts.local(name), name, digest, strict=ours)


def _file(what: str, path: Path, name: str, digest: str, *, strict: bool) -> Link:
    """A file whose digest was recorded; where the project has gone on since, another one in its place is no fault."""
    said = f"{name} sha256 {digest[:12]}..."
    if not path.exists():
        return Link(what, said, "gone", "is not there any more")
    if path_digest(path) == digest:
        return Link(what, said)
    return Link(what, said, "differs" if strict else "gone", "is another one now")


def _config(run: mlflow.entities.Run, lineage: dict[str, Any]) -> Link:
    said = f"sha256 {lineage['config'][:12]}..."
    agrees = run.data.tags.get("config") == lineage["config"][:12]
    return (
        Link("configuration", said) if agrees else Link("configuration", said, "differs", "the run's tag says another digest")
    )


def _commit(lineage: dict[str, Any], artifacts: Artifacts) -> Link:
    commit, changed = lineage["commit"], lineage["dirty_diff"]
    if not commit:
        return Link("commit", "none", "gone", "it was made outside a Git checkout")
    said = f"{commit[:12]}{f', and changes with digest {changed[:12]}...' if changed else ''}"
    if not git(artifacts.project, "cat-file", "-t", commit):
        return Link("commit", said, "gone", "is not in this repository")
    return Link("commit", said)


def _model(run: mlflow.entities.Run, tracker: Tracker, artifacts: Artifacts, *, ours: bool) -> Iterator[Link]:
    if ours:
        recorded = read_record(artifacts.finetuned).get("weights_files", {})
        for name, digest in recorded.items():
            yield _file("model", artifacts.finetuned / name, f"models/finetuned/{name}", digest, strict=True)
    for model in _models(run, tracker):
        yield from _logged(model)


def _logged(model: Any) -> Iterator[Link]:
    said = f"models:/{model.model_id}"
    try:
        folder = _copy(model)
    except Exception as error:  # noqa: BLE001  (whatever keeps the files from being read)
        yield Link("model in MLflow", said, "differs", f"its files cannot be read ({one_line(error, 100)})")
        return
    recorded = read_record(folder).get("weights_files", {})
    wrong = [name for name, digest in recorded.items() if not (folder / name).is_file() or file_digest(folder / name) != digest]
    yield Link("model in MLflow", said) if not wrong else Link("model in MLflow", said, "differs", f"{wrong[0]} is another one")


def _reports(run: mlflow.entities.Run, artifacts: Artifacts, *, ours: bool) -> Iterator[Link]:
    for stage, split in (("evaluate", "val"), ("test", "test")):
        path = artifacts.report(stage) / "metrics.json"
        if not ours or not path.is_file():
            continue
        metrics = read_json(path, error=MachineError, remedy="make it anew with `dvc repro`", keys=("rows",))
        known = {name: run.data.metrics[f"{split}/{name}"] for name in metrics if f"{split}/{name}" in run.data.metrics}
        wrong = [name for name, value in known.items() if abs(value - metrics[name]) > 1e-9]
        said = f"{path.parent.name}: {', '.join(f'{name} {metrics[name]:.4g}' for name in list(known)[:2])}"
        why = f"MLflow says {wrong[0]} {known[wrong[0]]:.6g}" if wrong else ""
        yield Link("report", said, "differs" if wrong else "ok", why)


def _registry(run: mlflow.entities.Run, tracker: Tracker) -> Iterator[Link]:
    for version in tracker.client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        found = tracker.client.get_model_version(version.name, version.version)  # a search leaves the aliases out
        aliases = "".join(f", @{alias}" for alias in sorted(found.aliases))
        yield Link("registry", f"models:/{found.name}/{found.version}{aliases}")


def lineage_of(run_id: str, artifacts: Artifacts, runtime: RuntimeConfig) -> dict[str, Any]:
    """Returns what a run was made of.

    Raises:
        MachineError: MLflow does not know the run, or does not have its lineage.
    """
    return _lineage(_run(Tracker(runtime, artifacts), run_id))


def weights_of(run_id: str, artifacts: Artifacts, runtime: RuntimeConfig) -> dict[str, str]:
    """Returns the digests of the weights that a run made, by file.

    Raises:
        MachineError: MLflow does not have its model.
    """
    tracker = Tracker(runtime, artifacts)
    models = _models(_run(tracker, run_id), tracker)
    if not models:
        raise MachineError(f"run {run_id}: MLflow has no model of it; `finespun ui` shows the runs that there are")
    with needed(f"run {run_id}: its model cannot be read", "its files are gone"):
        return dict(read_record(_copy(models[0])).get("weights_files", {}))


def _models(run: mlflow.entities.Run, tracker: Tracker) -> list[Any]:
    rule = f"source_run_id = '{run.info.run_id}'"
    return list(tracker.client.search_logged_models([run.info.experiment_id], filter_string=rule))


def _copy(model: Any) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"{model.artifact_location}/artifacts/finetuned"))


def trace(given: str, artifacts: Artifacts, runtime: RuntimeConfig) -> Iterator[tuple[str, list[Link]]]:
    """Yields each run that belongs to what is given, by its id, with its chain.

    Raises:
        MachineError: there is none, or MLflow does not answer.
    """
    tracker = Tracker(runtime, artifacts)
    for run in runs_of(given, tracker, artifacts):
        try:
            yield run.info.run_id, list(chain(run, tracker, artifacts))
        except DataError as error:
            raise MachineError(str(error)) from error
