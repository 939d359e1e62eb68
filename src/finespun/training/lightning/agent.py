"""torchrun without its own words: a process that fails has said why, and the launcher says what becomes of the others."""

from __future__ import annotations

import logging
import sys

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import parse_args, run

from finespun.failures import ended

NOISY = ("multiprocessing.api", "agent.server.api", "rendezvous.dynamic_rendezvous", "rendezvous.c10d_rendezvous_backend")


def main() -> None:
    """Runs torchrun; any failure is exit code 1."""
    for name in NOISY:
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    try:
        run(parse_args(sys.argv[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        first, failure = error.get_first_failure()
        killed = ended(failure.exitcode)  # such a process could not say anything
        if killed:
            sys.stderr.write(f"rank {first} (process {failure.pid}): {killed}\n")
        sys.exit(1)
    except (RendezvousError, SignalException, DistError):
        sys.exit(1)


if __name__ == "__main__":
    main()
