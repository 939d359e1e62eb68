"""The only file that knows paths: what each stage writes, relative to a project and an output folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from finespun.errors import MachineError

PREPARED = Path("data/prepared")  # the path that `dvc.yaml` names
EXPERIMENTS = Path(".dvc/tmp/exps")  # where `dvc exp run --temp` and `--queue` run in copies of the project, which they delete


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """Paths of one run.

    `project` holds `conf/`, `dvc.yaml` and the user's data; `out` is where results go: the project itself under
    `dvc repro`, Hydra's output folder under `finespun run` (where prepared data are a link to a shared folder).
    """

    project: Path
    out: Path

    @property
    def home(self) -> Path:
        """Where working files and MLflow's runs lie: the project, or the one that DVC copied for an experiment."""
        return copied_from(self.project) or self.project

    @property
    def raw(self) -> tuple[Path, ...]:
        """The user's data, and DVC's cache, to which DVC may link them."""
        return self.project / "data" / "raw", self.dvc / "cache"

    @property
    def config(self) -> Path:
        return self.out / "build" / "config.yaml"

    @property
    def prepared(self) -> Path:
        return self.out / PREPARED

    @property
    def finetuned(self) -> Path:
        return self.out / "models" / "finetuned"

    def report(self, stage: str) -> Path:
        """The folder of `evaluate` or `test`."""
        return self.out / "reports" / {"evaluate": "evaluation", "test": "test"}[stage]

    @property
    def page(self) -> Path:
        """The report."""
        return self.out / "reports" / "index.html"

    @property
    def card(self) -> Path:
        """The model card with the results."""
        return self.out / "reports" / "model_card.md"

    def result(self, stage: str) -> Path:
        """The folder that a stage fills."""
        return {"prepare": self.prepared, "finetune": self.finetuned}.get(stage) or self.report(stage)

    @property
    def conf(self) -> Path:
        return self.project / "conf"

    @property
    def params(self) -> Path:
        return self.project / "params.yaml"

    @property
    def pipeline(self) -> Path:
        return self.project / "dvc.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.project / "dvc.lock"

    @property
    def dvc(self) -> Path:
        """DVC's own folder."""
        return self.home / ".dvc"

    @property
    def state(self) -> Path:
        """Working files that DVC and Git do not see: checkpoints, shared prepared data, unsent metrics."""
        return self.home / ".finespun"

    @property
    def mlruns(self) -> Path:
        return self.home / "mlruns"

    @property
    def finished(self) -> Path:
        """Results that DVC has not recorded yet."""
        return self.state / "finished"

    def seconds(self, stage: str) -> Path:
        """How long a stage took when it last ended well under `dvc repro`."""
        return self.state / "seconds" / stage

    @property
    def sweeps(self) -> Path:
        """What is known of each sweep, and its study where that is not elsewhere."""
        return self.state / "sweeps"

    @property
    def trial(self) -> Path:
        """What a sweep says to the trial whose folder `out` is."""
        return self.out / "trial.json"

    @property
    def broken(self) -> Path:
        """Files that could not be used any more, kept by `finespun doctor --fix`."""
        return self.state / "broken"

    @property
    def written(self) -> tuple[Path, ...]:
        """Folders that stages, MLflow or DVC write into, whether they are there yet or not."""
        results = (self.config.parent, self.prepared, self.finetuned, self.report("evaluate"), self.report("test"))
        made = {folder.parent: None for folder in results if folder.parent != self.out} | dict.fromkeys(results)
        return self.project, *made, self.state, self.mlruns, self.dvc, self.dvc / "cache", self.dvc / "tmp"

    def local(self, dependency: str) -> Path:
        """Where a path named in `dvc.yaml` lies for this run."""
        path = Path(dependency)
        made = path.is_relative_to(PREPARED) or path.parts[0] in {"models", "reports", "build"}
        return (self.out if made else self.project) / path


def copied_from(project: Path) -> Path | None:
    """Returns the project that DVC copied for `dvc exp run --temp` or `--queue`; None where a project is no such copy.

    DVC names the original in DVC_ROOT, which a stage may also have inherited: the copy lies among its experiments.
    """
    copy = next((folder for folder in (project, *project.parents) if (folder / ".dvc").is_dir()), project)
    named = [Path(os.environ["DVC_ROOT"])] if os.environ.get("DVC_ROOT") else []
    for root in (*named, *copy.parents):
        if (root / EXPERIMENTS).resolve() in copy.resolve().parents:
            return root / project.relative_to(copy)
    return None


def find_project() -> Path:
    """Returns the nearest folder, here or above, that holds `dvc.yaml` and `conf/`.

    Raises:
        MachineError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise MachineError(f"{here}: no finespun project here or above (a folder with dvc.yaml and conf/); go to one first")


def this_project() -> Artifacts:
    """Returns the paths of the project here or above.

    Raises:
        MachineError: there is none.
    """
    project = find_project()
    return Artifacts(project=project, out=project)
