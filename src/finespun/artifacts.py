"""The only file that knows paths: what each stage writes, relative to a project and an output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finespun.errors import MachineError

PREPARED = Path("data/prepared")  # the path that `dvc.yaml` names


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """Paths of one run.

    `project` holds `conf/`, `dvc.yaml` and the user's data; `out` is where results go: the project itself under
    `dvc repro`, Hydra's output folder under `finespun run` (where prepared data are a link to a shared folder).
    """

    project: Path
    out: Path

    @property
    def raw(self) -> tuple[Path, ...]:
        """The user's data, and DVC's cache, to which DVC may link them."""
        return self.project / "data" / "raw", self.project / ".dvc" / "cache"

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
    def conf(self) -> Path:
        return self.project / "conf"

    @property
    def params(self) -> Path:
        return self.project / "params.yaml"

    @property
    def pipeline(self) -> Path:
        return self.project / "dvc.yaml"

    @property
    def state(self) -> Path:
        """Working files that DVC and Git do not see: checkpoints, shared prepared data, unsent metrics."""
        return self.project / ".finespun"

    @property
    def mlruns(self) -> Path:
        return self.project / "mlruns"

    def local(self, dependency: str) -> Path:
        """Where a path named in `dvc.yaml` lies for this run."""
        path = Path(dependency)
        made = path.is_relative_to(PREPARED) or path.parts[0] in {"models", "reports", "build"}
        return (self.out if made else self.project) / path


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
