"""Several machines: how many there are, where they find each other, and what is done when one is lost.

The same command is started on each. torchrun's agents meet at `runtime.rendezvous`, and it is they who decide which machine
has which number; nobody has to say so. A machine that falls out ends this attempt on all others, which meet anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from finespun.config.sections import RuntimeConfig

NODES, RENDEZVOUS = "FINESPUN_NODES", "FINESPUN_RENDEZVOUS"  # set by who starts this command on each node (`stages/slurm.py`)
RESTARTS = 3  # of a run that loses a node and finds it, or another one, again
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Nodes:
    """How many machines (`2`, or `1:2` for at least one and at most two), and HOST:PORT of one of them."""

    count: str = "1"
    rendezvous: str = ""

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> Nodes:
        """Returns those of the configuration, or of whoever started this command on each of them."""
        given = os.environ.get(RENDEZVOUS)
        if given:
            return cls(os.environ.get(NODES, "1"), given)
        return cls(str(runtime.nodes), runtime.rendezvous or "")

    @property
    def most(self) -> int:
        """How many there may be."""
        return int(self.count.rpartition(":")[2])

    def arguments(self, run: str, *, patience: float) -> list[str]:
        """Returns what torchrun is told of them.

        Args:
            run: what all of them call it.
            patience: seconds in which they must have met.
        """
        if self.most == 1:
            return ["--standalone"]
        # Processes of a node that is lost are found out by those that talk to them; agents that are alone meet anew.
        limits = f"join_timeout={max(1, int(patience))},last_call_timeout=5,read_timeout=20"
        here = ["--local-addr=127.0.0.1"] if self.rendezvous.rpartition(":")[0] in LOOPBACK else []
        return [
            f"--nnodes={self.count}", "--rdzv-backend=c10d", f"--rdzv-endpoint={self.rendezvous}", f"--rdzv-id={run}",
            f"--rdzv-conf={limits}", "--max-restarts=0", *here,
        ]  # fmt: skip
