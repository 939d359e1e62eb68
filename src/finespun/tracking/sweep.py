"""The parent run of a multirun: opened before the first trial, so that each trial's run is its child."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from finespun.artifacts import Artifacts, find_project
from finespun.config.sections import RuntimeConfig


class ParentRun(Callback):
    """A Hydra callback; `conf/config.yaml` names it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Opens the parent run and names it to the trials by the environment, which launchers hand on."""
        from finespun.tracking.client import PARENT, Tracker, run_name  # noqa: PLC0415  (a single run has no parent)

        runtime = RuntimeConfig.model_validate(OmegaConf.to_container(config.runtime, resolve=True))
        if not runtime.tracking:
            return
        project = find_project()
        self.tracker = Tracker(runtime, Artifacts(project=project, out=project))
        sweep = " ".join(config.hydra.overrides.task)
        self.run = self.tracker.start(run_name("sweep"), tags={"sweep.overrides": sweep}, params={})
        os.environ[PARENT] = self.run.id

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Closes the parent run."""
        if not hasattr(self, "run"):
            return
        self.run.set_tags({"sweep.folder": str(Path(config.hydra.sweep.dir).resolve())})
        self.run.__exit__(None, None, None)
