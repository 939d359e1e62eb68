"""Earlier models, named by their MLflow addresses, as local folders: what a run continues from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config.sections import ModelConfig, RuntimeConfig
from finespun.errors import ModelError
from finespun.kept import in_one_move
from finespun.masking import one_line
from finespun.models.addresses import store

SCHEMES = ("runs:/", "models:/")


def localised(model: ModelConfig, runtime: RuntimeConfig, artifacts: Artifacts) -> ModelConfig:
    """Returns the section `model` with an MLflow address replaced by the folder that was fetched from there.

    Raises:
        ModelError: MLflow has no such model, or it holds no transformers folder.
        MachineError: the server does not answer.
    """
    if model.checkpoint is None or not model.checkpoint.startswith(SCHEMES):
        return model
    return model.model_copy(update={"checkpoint": str(_fetched(model.checkpoint, runtime, artifacts))})


def _fetched(address: str, runtime: RuntimeConfig, artifacts: Artifacts) -> Path:
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415  (1.6 s that only such addresses cost)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    from finespun.tracking.client import Tracker  # noqa: PLC0415  (imports mlflow)

    tracker = Tracker(runtime, artifacts)
    try:
        fixed = _without_alias(address, tracker.client)
        name = hashlib.sha256(f"{tracker.uri} {fixed}".encode()).hexdigest()[:32]
        folder = in_one_move(
            store(artifacts.project, "earlier") / name,
            lambda partial: download_artifacts(fixed, dst_path=str(partial), tracking_uri=tracker.uri),
        )
    except (MlflowException, OSError) as error:
        reason = one_line(error, 200)
        raise ModelError(
            f"model.checkpoint: {address}: MLflow at {tracker.uri} has no such model ({reason}); `finespun ui` shows the"
            " runs and models that there are"
        ) from error
    found = sorted(folder.rglob("config.json"), key=lambda path: len(path.parts))
    if not found:
        raise ModelError(f"model.checkpoint: {address}: holds no transformers folder (no config.json); name another model")
    return found[0].parent


def _without_alias(address: str, client: Any) -> str:
    """`models:/NAME@ALIAS` as `models:/NAME/VERSION`: an alias moves, a version does not."""
    name, sign, alias = address.removeprefix("models:/").partition("@")
    if not sign:
        return address
    return f"models:/{name}/{client.get_model_version_by_alias(name, alias).version}"
