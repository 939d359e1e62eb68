"""B3: a new head on a frozen MiniLM, 10 epochs and more, against `transformers.Trainer` with a frozen backbone, in float32.

Arms, in turn: finespun with an empty cache, finespun again with the cache of the run before, Trainer.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from functools import partial
from pathlib import Path

from against_trainer import compare, ours, review_rows, theirs, timed


def main() -> None:
    """Runs the comparison for one number of epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as cache:
        features = Path(cache)
        arms = {
            "finespun": partial(ours, epochs=options.epochs, strategy="head", features=features),
            "finespun, second run": partial(ours, epochs=options.epochs, strategy="head", features=features),
            "Trainer, frozen backbone": partial(theirs, epochs=options.epochs, frozen=True),
        }
        with tempfile.TemporaryDirectory() as other:  # what a process imports and sets up when it first trains is nobody's
            timed(partial(ours, strategy="head", features=Path(other)), review_rows(64))
            timed(partial(theirs, frozen=True), review_rows(64))
        compare(f"Movie reviews, head alone, {options.epochs} epochs", review_rows(options.rows), arms, rounds=1)


if __name__ == "__main__":
    main()
