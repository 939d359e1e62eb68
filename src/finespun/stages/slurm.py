"""SLURM: a stage as a job of its own through submitit, or, inside an allocation, as a step of it through srun.

Either starts the very same command once on each node, with the place where they meet; from there on torchrun takes over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig, SlurmConfig
from finespun.errors import FinespunError, MachineError
from finespun.masking import one_line
from finespun.training.lightning.launching import run_and_wait
from finespun.training.lightning.nodes import NODES, RENDEZVOUS, Nodes

PORTS = (20_000, 10_000)  # the first, and how many: jobs that share a node take different ones
POLL_SECONDS = 1.0


def hand_over(stage: str, artifacts: Artifacts, runtime: RuntimeConfig) -> bool:
    """Runs a stage on nodes that SLURM gives; False where `runtime.slurm` is not set, or this already is such a node.

    Raises:
        MachineError: SLURM or submitit is not there, or the job did not come to its end.
        FinespunError: the stage failed; it has its exit code, and has said why.
    """
    if runtime.slurm is None or RENDEZVOUS in os.environ:
        return False
    command = [sys.executable, "-m", "finespun.stages", stage, "--out", str(artifacts.out)]
    if "SLURM_JOB_ID" in os.environ:
        code = _as_step(command, artifacts.project)
    else:
        code = _as_job(stage, command, artifacts, runtime, runtime.slurm)
    if code:
        failed = FinespunError(f"the stage ended with exit code {code} on its nodes; the reason stands above")
        failed.exit_code = code
        raise failed
    return True


def _as_step(command: list[str], folder: Path) -> int:
    """Runs a command once on each node of this allocation; returns its exit code."""
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or 1)
    hosts = _hosts(os.environ["SLURM_JOB_NODELIST"]) if nodes > 1 else ["127.0.0.1"]
    if not shutil.which("srun"):
        raise MachineError("runtime.slurm: SLURM_JOB_ID is set, and there is no srun; start it on a node of the allocation")
    os.environ |= met_at(hosts, int(os.environ["SLURM_JOB_ID"]))
    cores = os.environ.get("SLURM_CPUS_ON_NODE")  # srun would give a task one
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    options += [f"--cpus-per-task={cores}"] if cores else []
    try:
        return run_and_wait(["srun", *options, *command], folder=folder)
    finally:
        for name in (NODES, RENDEZVOUS):
            del os.environ[name]


def _hosts(nodelist: str) -> list[str]:
    """Returns the names of nodes that SLURM writes as `n[1-3,7]`."""
    done = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.split():
        raise MachineError(f"runtime.slurm: scontrol does not know the nodes {nodelist} ({done.stderr.strip()[:200]})")
    return done.stdout.split()


def met_at(hosts: list[str], job: int) -> dict[str, str]:
    """Returns the environment by which the nodes of a job find each other."""
    first, many = PORTS
    return {NODES: str(len(hosts)), RENDEZVOUS: f"{hosts[0]}:{first + job % many}"}


def _as_job(stage: str, command: list[str], artifacts: Artifacts, runtime: RuntimeConfig, slurm: SlurmConfig) -> int:
    """Submits a job, shows what it says, and returns its exit code."""
    try:
        import submitit  # noqa: PLC0415  (0.2 s, and an extra that only SLURM needs)
    except ImportError as error:
        raise MachineError("runtime.slurm: submitit is not installed; pip install 'finespun[slurm]'") from error
    folder = artifacts.state / "slurm"
    if slurm.executor == "slurm" and not shutil.which("sbatch"):
        raise MachineError("runtime.slurm: there is no sbatch here; go to a login node, or set runtime: auto in params.yaml")
    executor = submitit.AutoExecutor(folder=folder, cluster=slurm.executor)
    executor.update_parameters(**_parameters(f"finespun-{stage}", runtime, slurm))
    job = executor.submit(on_node, command, str(artifacts.project))
    said = f"{stage}: job {job.job_id} of {slurm.executor}, ended with this command (Ctrl-C)"
    print(f"{said}; it writes {job.paths.stdout}", flush=True)  # noqa: T201
    try:
        _show(job)
    except BaseException:
        job.cancel(check=False)
        raise
    try:
        codes: list[int] = job.results()
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
        reason = one_line(error)
        raise MachineError(
            f"job {job.job_id} did not come to its end (state {job.state}: {reason}); {job.paths.stderr} says more; start"
            " again, and training goes on from its last checkpoint"
        ) from error
    return max(codes)


def _parameters(name: str, runtime: RuntimeConfig, slurm: SlurmConfig) -> dict[str, Any]:
    given: dict[str, Any] = {"name": name, "nodes": Nodes.of(runtime).most, "tasks_per_node": 1, "timeout_min": slurm.minutes}
    given |= {"gpus_per_node": slurm.gpus_per_node} if slurm.gpus_per_node is not None else {}
    if slurm.executor == "local":
        return given
    named: dict[str, Any] = {
        "slurm_partition": slurm.partition,
        "slurm_account": slurm.account,
        "cpus_per_task": slurm.cpus_per_node,
    }
    named |= {"mem_gb": slurm.memory_gb, "slurm_setup": list(slurm.setup) or None}
    given |= {key: value for key, value in named.items() if value is not None}
    return given | {"slurm_additional_parameters": dict(slurm.sbatch)}


def _show(job: Any) -> None:
    """Shows what the first of a job's nodes writes, until the job has ended."""
    shown = dict.fromkeys((job.paths.stdout, job.paths.stderr), 0)
    done = False
    while not done:
        done = job.done()
        for path, stream in zip(shown, (sys.stdout, sys.stderr), strict=True):
            new = path.read_bytes()[shown[path] :] if path.is_file() else b""
            whole = new if done else new[: new.rfind(b"\n") + 1]
            shown[path] += len(whole)
            lines = whole.decode(errors="replace").splitlines(keepends=True)
            stream.write("".join(line for line in lines if not line.startswith("submitit ")))
            stream.flush()
        if not done:
            time.sleep(POLL_SECONDS)


def on_node(command: list[str], folder: str) -> int:
    """Runs a stage on this node of a job; returns its exit code."""
    import submitit  # noqa: PLC0415  (it has started this process)

    here = submitit.JobEnvironment()
    digits = "".join(filter(str.isdigit, here.job_id)) or "0"
    os.environ |= met_at(list(here.hostnames) if here.num_nodes > 1 else ["127.0.0.1"], int(digits))
    return run_and_wait(command, folder=Path(folder))
