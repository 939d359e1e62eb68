"""Where Hydra looks for plugins: finespun's sweeper and launcher, which import nothing before a sweep begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class FinespunSweeper(Sweeper):
    """`hydra/sweeper=grid` and `hydra/sweeper=optuna`; `finespun.sweeps.search` does the work."""

    def __init__(self, params: DictConfig | None, sampler: DictConfig | None, pruner: DictConfig | None) -> None:
        """The sampler and the pruner come as settings: each trial draws with a sampler of its own seed."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra gives to every sweeper."""
        self.context, self.function, self.whole = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the sweep, or goes on with it.

        Raises:
            FinespunError: it cannot begin, or ended badly; the exit code says how.
        """
        from finespun.sweeps.search import search  # noqa: PLC0415  (a single run need not pay for Optuna)

        return search(self.whole, self.context, self.function, arguments)


class LocalLauncher(Launcher):
    """`hydra/launcher=local`: finespun's sweeper starts and watches its trials itself (`sweeps.processes.workers`)."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra gives to every launcher."""
        self.context, self.function, self.whole = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs trials of another sweeper than finespun's, one after another, as Hydra's own launcher does."""
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher  # noqa: PLC0415

        launcher = BasicLauncher()
        launcher.setup(hydra_context=self.context, task_function=self.function, config=self.whole)
        found: Sequence[JobReturn] = launcher.launch(job_overrides, initial_job_idx)
        return found
