"""`sweep=auto`: a look at the rows, the model and the device, and a search space that suits them."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config.sections import SweepConfig
from finespun.sweeps.composing import Composer
from finespun.sweeps.space import Space


def widened(space: Space, settings: SweepConfig, composer: Composer, artifacts: Artifacts) -> tuple[Space, SweepConfig]:
    """Returns the space."""
    return space, settings
