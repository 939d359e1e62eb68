"""B8: two processes against one, each with one thread: rows a second, and of each process its CPU time, memory and traffic.

Arms: one process; two with copies (DDP); two with shards (FSDP2). MiniLM, batch 32, lognormal lengths. They run in turn,
`--rounds` times; the best round counts. Traffic is what the loopback interface counts while they train: on a machine with
others at work, theirs is in it. CPU time says what idle cores would do; the load of the machine is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from against_trainer import lognormal_rows, ours

from finespun.training.lightning.fine_tuner import FineTuner

ARMS = {"one process": (1, "ddp"), "two, copies (DDP)": (2, "ddp"), "two, shards (FSDP2)": (2, "fsdp")}


def loopback() -> int:
    """Returns how many bytes this machine has sent to itself."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[9]) for line in lines if line.strip().startswith("lo:")), 0)


def watched() -> list[int]:
    """Returns a list that gets what has been sent whenever a step begins."""
    found: list[int] = []
    step = FineTuner.training_step

    def counted(self: FineTuner, batch: Any, batch_idx: int) -> torch.Tensor:
        found.append(loopback())
        return step(self, batch, batch_idx)

    FineTuner.training_step = counted  # type: ignore[method-assign]
    return found


def work(rows: int, devices: int, kind: str, folder: Path) -> None:
    """One process of an arm: trains, and writes what that took."""
    rank = int(os.environ.get("RANK", "0"))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    mine = folder / f"rank-{rank}"
    mine.mkdir()
    (folder / "store").mkdir(exist_ok=True)
    (mine / "store").symlink_to(folder / "store")
    run = ours(lognormal_rows(rows), mine, devices=devices, kind=kind)
    sent = watched()
    wall, cpu = time.perf_counter(), time.process_time()
    steps = run().steps
    found = {
        "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "steps": steps,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "sent_mb": (sent[-1] - sent[0]) / 1e6 / devices / (len(sent) - 1),
    }  # fmt: skip
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))


def measured(rows: int, devices: int, kind: str) -> list[dict[str, float]]:
    """Starts an arm; returns what each of its processes found."""
    with tempfile.TemporaryDirectory() as name:
        start = [sys.executable]
        if devices > 1:
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
        command = [*start, __file__, "--rows", str(rows), "--work", str(devices), kind, name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return [json.loads((Path(name) / f"rank-{rank}.json").read_text()) for rank in range(devices)]


def main() -> None:
    """Prints a line an arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.rows, int(options.work[0]), options.work[1], Path(options.work[2]))
        return
    found: dict[str, list[list[dict[str, float]]]] = {arm: [] for arm in ARMS}
    print(f"{options.rows} rows, {options.rounds} rounds; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    for _ in range(options.rounds):
        for arm, (devices, kind) in ARMS.items():
            found[arm].append(measured(options.rows, devices, kind))
    print("| arm | rows/s | faster | CPU s of a process | by CPU time | peak MB of a process | MB sent a step and process |")
    print("|---|---|---|---|---|---|---|")
    walls = {arm: min(max(each["wall"] for each in run) for run in runs) for arm, runs in found.items()}
    cpus = {arm: min(max(each["cpu"] for each in run) for run in runs) for arm, runs in found.items()}
    for arm, runs in found.items():
        peak = min(max(each["peak_mb"] for each in run) for run in runs)
        sent = min(max(each["sent_mb"] for each in run) for run in runs)
        print(
            f"| {arm} | {options.rows / walls[arm]:.1f} | {walls['one process'] / walls[arm]:.2f}x | {cpus[arm]:.1f} |"
            f" {cpus['one process'] / cpus[arm]:.2f}x | {peak:,.0f} | {sent:,.0f} |",
            flush=True,
        )
    print(f"\nload at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
