"""Where a stage's work is done: in this process on one device, or by torchrun's workers on several."""

from __future__ import annotations

from collections.abc import Callable

from finespun.artifacts import Artifacts
from finespun.config.sections import RuntimeConfig
from finespun.training.lightning.devices import Hardware
from finespun.training.lightning.launching import is_worker, launch
from finespun.training.lightning.nodes import Nodes


def on_devices(
    stage: str, artifacts: Artifacts, hardware: Hardware, work: Callable[[], None], *, runtime: RuntimeConfig
) -> None:  # fmt: skip
    """Does `work` here if this process has a device of its own; otherwise starts the stage again, once a device.

    Raises:
        FinespunError: the workers failed; it has their exit code, and they have said why.
        MachineError: one of them was silent for `runtime.stall_minutes`, or other nodes did not come.
    """
    nodes = Nodes.of(runtime)
    if not is_worker():
        print(f"{stage}: {hardware}", flush=True)  # noqa: T201
    if is_worker() or hardware.devices == nodes.most == 1:
        work()
        return
    command = ["finespun.stages", stage, "--out", str(artifacts.out)]
    launch(command, hardware.devices, stall_minutes=runtime.stall_minutes, nodes=nodes, name=stage)
