"""MLflow in a process of its own, for stages that speak to it at their end alone: they need not wait for its import (2 s).

`Aside` starts `python -m finespun.tracking.aside`, which imports MLflow, connects, and then answers requests: each is a line of
JSON on its standard input, each answer one on its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.errors import FinespunError, MachineError
from finespun.training.launch import die_with_parent

if TYPE_CHECKING:
    from finespun.tracking.client import Run, Tracker

Request = dict[str, Any]


class Aside:
    """The run of a model, once it is asked for; use it as a context, which waits until everything is sent."""

    def __init__(self, runtime: RuntimeConfig, artifacts: Artifacts, run_id: str) -> None:
        command = [sys.executable, "-m", "finespun.tracking.aside"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        folders = {"project": str(artifacts.project), "out": str(artifacts.out)}
        self._write({"runtime": runtime.model_dump(mode="json"), "run_id": run_id, **folders})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):  # it ended before it read all: its exit code says so
            self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        if code and kind is None:
            raise MachineError(f"MLflow's process ended with {code}; the reason stands above, run the stage again")

    def look(self, digest: str, schema: dict[str, Any]) -> int:
        """Counts one look at a test split, which its digest names, and returns how many there were by all runs."""
        return int(self._ask({"look": digest, "schema": schema})["looks"])

    def report(self, numbers: dict[str, float], folder: Path) -> None:
        """Adds numbers and a folder's files to the run."""
        self._ask({"report": numbers, "folder": str(folder)})

    def _write(self, request: Request) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # there will be no answer, or one that says why
            print(json.dumps(request), file=self.process.stdin, flush=True)

    def _ask(self, request: Request) -> dict[str, Any]:
        assert self.process.stdout
        self._write(request)
        line = self.process.stdout.readline()
        if not line:
            raise MachineError("MLflow's process ended before it answered; the reason stands above, run the stage again")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            failed = FinespunError(answer["error"])
            failed.exit_code = answer["exit_code"]
            raise failed
        return answer


def serve(settings: Request, requests: Iterator[Request], answer: Callable[[Request], object]) -> None:
    """Connects, opens the run at the first request, and ends it: FAILED, if nothing was reported in the end.

    Raises:
        MachineError: the tracking server does not answer, or the stage failed in between.
    """
    from finespun.tracking.client import Tracker  # noqa: PLC0415  (what this process is for)

    artifacts = Artifacts(project=Path(settings["project"]), out=Path(settings["out"]))
    tracker = Tracker(RuntimeConfig.model_validate(settings["runtime"]), artifacts)
    first = next(requests, None)
    if first is None:
        return
    with _run_of_model(tracker, settings["run_id"]) as run:
        for request in chain([first], requests):
            answer(_do(run, request))
        if "report" not in request:
            raise MachineError("the stage ended before it reported")


def _run_of_model(tracker: Tracker, run_id: str) -> Run:
    """Opens the run that made the model; a new one, tagged with its id, where this tracking server does not know it."""
    run = tracker.resume(run_id)
    if run is not None:
        return run
    print(f"warning: MLflow at {tracker.uri} does not know the run {run_id} of this model; a new run takes its results")  # noqa: T201
    return tracker.start(f"evaluation-of-{run_id[:8]}", tags={"model_of_run": run_id}, params={})


def _do(run: Run, request: Request) -> Request:
    if "look" in request:
        earlier = int(run.tag("test_looks") or 0)
        run.set_tags({"test_split": request["look"], "test_looks": str(earlier + 1)})
        run.log_data("test", request["schema"])
        return {"looks": run.tracker.count_looks(request["look"])}
    run.log(request["report"], step=0)
    run.log_folder(Path(request["folder"]), Path(request["folder"]).name)
    return {}


def main() -> None:
    """Serves the process that started this one, and ends with it."""
    die_with_parent()
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever is printed is for a person
    lines = (json.loads(line) for line in sys.stdin)
    try:
        serve(next(lines), lines, lambda each: print(json.dumps(each), file=answers, flush=True))
    except FinespunError as error:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}), file=answers, flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
