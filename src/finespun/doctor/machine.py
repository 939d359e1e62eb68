"""Checks of what a project runs on: packages that break each other, devices and precision, DVC's cache and remote, a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from finespun.artifacts import Artifacts
from finespun.config.sections import RunConfig
from finespun.doctor.dvc import in_conflict
from finespun.doctor.finding import Finding, well
from finespun.errors import FinespunError
from finespun.masking import first_line, without_login

TORCH_BUILT_FOR = ("torchvision", "torchaudio")  # compiled against one torch; beside another, transformers cannot be imported
SWEEPER = "hydra-optuna-sweeper"
PLUGINS = {  # of DVC, by the scheme of a remote's address
    "s3": "dvc-s3", "gs": "dvc-gs", "azure": "dvc-azure", "ssh": "dvc-ssh", "gdrive": "dvc-gdrive", "hdfs": "dvc-hdfs",
    "oss": "dvc-oss", "webdav": "dvc-webdav", "webdavs": "dvc-webdav",
}  # fmt: skip
PATIENCE_SECONDS = 3
SLOW_HERE = "bf16-mixed"


def check_combinations() -> Iterator[Finding]:
    """Looks for packages that are known to break others by being there."""
    found = []
    for name in TORCH_BUILT_FOR:
        for text in _required_by(name):
            needed = Requirement(text)
            if needed.name == "torch" and not needed.specifier.contains(version("torch"), prereleases=True):
                said = f"{name} {version(name)} was built for torch{needed.specifier}, and torch is {version('torch')}"
                found.append((f"{said}: transformers cannot be imported beside it", name))
    if _required_by(SWEEPER):
        said = f"{SWEEPER} {version(SWEEPER)} is another `hydra/sweeper=optuna`, for Optuna 2"
        found.append((f"{said}: it hides the one of finespun", SWEEPER))
    for said, name in found:
        remedy = f"remove it, finespun does not need it: `pip uninstall {name}`"
        yield Finding(check="combinations", state="wrong", found=said, remedy=remedy)
    if not found:
        yield well("combinations", "no package that breaks others")


def _required_by(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def check_devices(config: RunConfig) -> Iterator[Finding]:
    """Resolves every `auto` of devices and precision, as `finetune` will."""
    try:
        from finespun.sweeps.processes.workers import gpus_here  # noqa: PLC0415
        from finespun.training.lightning.devices import choose  # noqa: PLC0415  (imports torch: what is wrong with it is shown)

        found, automatic = choose(config.runtime, config.trainer.precision), choose(config.runtime)
    except (ImportError, OSError) as error:
        remedy = "install it anew: `make setup`, or `pip install --force-reinstall torch`"
        yield Finding(check="devices", state="wrong", found=f"torch cannot be imported: {first_line(error)}", remedy=remedy)
        return
    except FinespunError as error:
        yield Finding(
            check="devices", state="wrong", found=str(error), remedy="or repair the driver: `nvidia-smi` must show it"
        )
        return
    gpus = gpus_here(config.runtime.accelerator) if shutil.which("nvidia-smi") else []
    if found.accelerator == "cpu" and gpus:
        said = f"{len(gpus)} x GPU there, and torch {version('torch')} cannot use them"
        remedy = "install a build for CUDA: `pip install -r requirements-cuda.lock`, or update the driver"
        yield Finding(
            check="devices", state="note", found=f"{said}: {found}", remedy=f"{remedy}; or set runtime.accelerator: cpu"
        )
    elif found.accelerator == "cpu" and found.precision == SLOW_HERE and automatic.precision != SLOW_HERE:
        said = f"trainer.precision: {SLOW_HERE}, and {automatic.why}: many times slower than {automatic.precision}"
        yield Finding(check="devices", state="note", found=said, remedy="set trainer.precision: auto")
    else:
        yield well("devices", str(found))


def check_storage(artifacts: Artifacts) -> Iterator[Finding]:
    """Looks at DVC's cache and remote, without asking the remote anything."""
    from dvc.config import Config, ConfigError  # noqa: PLC0415  (0.3 s)

    try:
        settings = Config(dvc_dir=str(artifacts.dvc))
    except ConfigError as error:
        if in_conflict(artifacts.dvc / "config"):
            return  # `check_dvc` says so
        remedy = "correct it, or take the committed file: `git checkout HEAD -- .dvc/config`"
        yield Finding(check=".dvc/config", state="wrong", found=first_line(error), remedy=remedy)
        return
    cache = Path(settings["cache"].get("dir") or artifacts.dvc / "cache")
    if settings["cache"].get("dir") and not (cache.is_dir() and os.access(cache, os.W_OK)):
        said = f"{cache} (cache.dir in .dvc/config) {'cannot be written to' if cache.is_dir() else 'is not there'}"
        remedy = f"make it, or mount its disk: `mkdir -p {cache}`; or keep the cache here: `dvc config --unset cache.dir`"
        yield Finding(check="DVC's cache", state="wrong", found=said, remedy=remedy)
    else:
        yield well("DVC's cache", str(cache))
    yield _remote(settings["core"].get("remote"), {name: str(each["url"]) for name, each in settings["remote"].items()})


def _remote(name: str | None, urls: dict[str, str]) -> Finding:
    check = "DVC's remote"
    if name is None:
        listed = f"none is the default (there are {', '.join(urls)})" if urls else "none"
        return well(check, f"{listed}; `dvc push` needs one: `dvc remote add --default NAME ADDRESS`")
    if name not in urls:
        said = f"core.remote names {name}, which is not one of {', '.join(urls) or '(none)'}"
        return Finding(check=check, state="wrong", found=said, remedy=f"add it: `dvc remote add {name} ADDRESS`")
    parts = urlsplit(urls[name])
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without user and password
    plugin = PLUGINS.get(url.partition("://")[0]) if "://" in url else None
    if plugin and not _is_installed(plugin):
        return Finding(
            check=check, state="wrong", found=f"{name} ({url}) needs {plugin}, which is not installed",
            remedy=f"`pip install {plugin}`",
        )  # fmt: skip
    if "://" not in url and not Path(url).is_dir():
        return Finding(
            check=check, state="note", found=f"{name}: {url} is not there", remedy="mount its disk; else `dvc push` makes it"
        )  # fmt: skip
    return well(check, f"{name}: {url}")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def check_server(config: RunConfig) -> Iterator[Finding]:
    """Asks the MLflow server, where there is one, whether it is well."""
    address = config.runtime.tracking_uri
    if address is None or not address.startswith(("http://", "https://")):
        return
    shown = without_login(address)
    place = urlsplit(shown)
    way = HTTPSConnection if place.scheme == "https" else HTTPConnection
    try:
        with closing(way(place.netloc, timeout=PATIENCE_SECONDS)) as connection:
            connection.request("GET", f"{place.path.rstrip('/')}/health")
            connection.getresponse()  # also one that asks for a password answers
        yield well("MLflow", f"{shown} answers")
    except (OSError, HTTPException) as error:
        remedy = "start it, or correct runtime.tracking_uri; runs go on without it, and `finespun sync` sends what waits"
        yield Finding(check="MLflow", state="note", found=f"{shown} does not answer ({first_line(error)})", remedy=remedy)
