"""configure: params.yaml and conf/ become build/config.yaml, composed once and checked once."""

from __future__ import annotations

from finespun.artifacts import Artifacts
from finespun.config.compose import compose, write


def run(artifacts: Artifacts) -> None:
    """Composes, checks, writes."""
    config, composed = compose(artifacts)
    write(config, composed, artifacts.config)
    if config.model.trust_remote_code:
        print("warning: model.trust_remote_code is true: code from the checkpoint will run on this machine")  # noqa: T201
