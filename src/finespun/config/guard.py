"""Between Hydra and its configuration: what it composes is checked before it instantiates, logs or writes anything.

Hydra has no hook for that, so two of its methods are wrapped: the one that reads a file of settings and the one that composes.
All its doors (`hydra.main`, `--multirun`, each trial of a sweep, `--cfg`, `compose`) lead through them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finespun.config import reading, targets
from finespun.errors import ConfigError, listed
from finespun.masking import holds_secret

LOGGING = ("job_logging", "hydra_logging")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
CALLED = {"_target_", "()", "class", "queue", "listener", "custom_search_space"}  # keys whose value Hydra or logging calls
HARMLESS = ("CUDA_", "MKL_", "NCCL_", "OMP_", "OPENBLAS_", "TOKENIZERS_", "TORCH_LOGS")  # variables that choose no code
INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
NESTED = re.compile(r"\$\{[^{}]*\$\{")
MOST_NESTED = 8
MOST_CHARACTERS = 1_000_000
ELSEWHERE = "settings are read from conf/ alone, so that Git and DVC know them; copy the files there"


def problems(composed: DictConfig) -> list[str]:
    """Returns what is wrong with a composed configuration that still has its section `hydra`."""
    plain = OmegaConf.to_container(composed, resolve=False)
    found = [*_growth(plain), *_secrets(plain)]
    if found:
        return found
    runtime = composed.get("runtime") or {}
    also = [str(each) for each in runtime.get("allow_targets") or ()]
    for name in ("callbacks", "launcher", "sweeper", *LOGGING):
        node = composed.hydra.get(name)
        if isinstance(node, Container):
            section = "logging" if name in LOGGING else name
            found += list(_called(node, f"hydra.{name}", f"hydra.{section}", also))
    return [*found, *_job(composed.hydra.job)]


def _called(node: Container, path: str, section: str, also: Sequence[str]) -> Iterator[str]:
    """Yields a problem for each name in a part of Hydra's section that would be called and is not allowed."""
    for key, value in _values(node):
        where = f"{path}.{key}"
        if str(key) in CALLED and not (key in {"queue", "listener"} and value is None):
            refused = targets.refusal(section, value if isinstance(value, str) else f"{value!r}", also=also)
            if refused:
                yield f"{where}: {refused}"
        elif isinstance(value, DictConfig | ListConfig):
            yield from _called(value, where, section, also)
        elif isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in STREAMS:
            yield f"{where}: {value} is not allowed; allowed: {listed(STREAMS)}"


def _values(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yields keys and values, interpolations resolved; what has no value before a run has begun stays text."""
    raw: Any = OmegaConf.to_container(node, resolve=False)
    for key in range(len(node)) if isinstance(node, ListConfig) else node:
        try:
            yield key, None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException:
            yield key, raw[key]


def _job(job: Any) -> Iterator[str]:
    if job.chdir:
        yield "hydra.job.chdir: is true, but stages run in the project's folder; set it to false"
    if job.env_copy:
        yield "hydra.job.env_copy: would be recorded with its values; set the variables where the trials run"
    for name in job.env_set:
        if not str(name).startswith(HARMLESS):
            yield (
                f"hydra.job.env_set.{name}: is recorded, and can choose which code runs; set it in the shell (here may be set"
                f" what begins with: {listed(HARMLESS)})"
            )


def _secrets(plain: Any) -> Iterator[str]:
    """Yields a problem for each address with a password written out: Hydra would record it with the configuration."""
    keys = [key for key, value in _leaves(plain) if isinstance(value, str) and holds_secret(value)]
    for key in [key for key in keys if not key.startswith("hydra.")] or keys:  # Hydra's section repeats the command line
        yield (
            f"{key}: has a password or token in it, which would be recorded; take it from the environment"
            " (http://user:${oc.env:NAME}@host, NAME being a variable of yours), or for MLflow set MLFLOW_TRACKING_USERNAME"
            " and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
        )


def _growth(plain: Any) -> Iterator[str]:
    """Yields a problem where interpolations would make a small configuration too large for memory."""
    leaves = {key: value if isinstance(value, str) else "" for key, value in _leaves(plain)}
    sizes: dict[str, int] = {}

    def size(key: str) -> int:
        if key not in sizes:
            sizes[key] = 0  # of a circle, which OmegaConf reports
            below = [each for each in leaves if each == key or each.startswith(f"{key}.")] if key else list(leaves)
            sizes[key] = sum(1 + len(leaves[each]) + sum(map(size, _references(leaves[each], each))) for each in below)
        return sizes[key]

    dynamic = sum(len(NESTED.findall(value)) for value in leaves.values())
    if dynamic > MOST_NESTED:
        yield f"conf/: {dynamic} interpolations stand inside others; at most {MOST_NESTED}; write out what they stand for"
        return
    for key in leaves:
        if size(key) > MOST_CHARACTERS:
            yield f"{key}: its interpolations make {size(key):,} characters of it; at most {MOST_CHARACTERS:,}; write it out"
            return


def _references(text: str, key: str) -> list[str]:
    """Returns the keys that the interpolations of a value name."""
    found = []
    for name in (each.strip() for inside in INTERPOLATION.findall(text) for each in re.split(r"[,:]", inside)):
        path = name.lstrip(".").replace("[", ".").replace("]", "")
        dots = len(name) - len(name.lstrip("."))
        parents = key.split(".")[:-dots] if dots else []
        found.append(".".join([*parents, path]).strip("."))
    return found


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _elsewhere(loader: ConfigLoaderImpl, config_name: str | None, overrides: Sequence[str]) -> str | None:
    """Returns what makes Hydra read settings from outside conf/, which no stage declares and Git does not record."""
    given = next((each for each in overrides if each.lstrip("+~").partition("=")[0].strip() == "hydra.searchpath"), None)
    if given:
        return given
    for each in loader.get_search_path().get_path():
        if each.provider == "main" and config_name:
            primary = Path(each.path.removeprefix("file://"), f"{config_name.removesuffix('.yaml')}.yaml")
            if primary.is_file() and OmegaConf.select(reading.load(primary), "hydra.searchpath"):
                return f"{primary.name}: hydra.searchpath"
        if each.provider == "command-line":
            return f"--config-dir {each.path.removeprefix('file://')}"
    return None


@lru_cache(maxsize=1024)
def _check_file(path: Path, _changed: int) -> None:
    reading.check(path)


def _install() -> None:
    plugins: list[Any] = Plugins.instance().discover(ConfigSource)
    files = next(each for each in plugins if each.scheme() == "file")
    read, compose = files.load_config, ConfigLoaderImpl.load_configuration

    @wraps(read)
    def checked_read(self: Any, config_path: str) -> Any:
        path = Path(self.path, self._normalize_file_name(config_path)).resolve()
        if path.is_file():
            if not path.is_relative_to(Path(self.path).resolve()):
                raise ConfigError([f"{path}: lies outside {self.path}, where settings are read from; copy it there"])
            _check_file(path, path.stat().st_mtime_ns)
        return read(self, config_path)

    @wraps(compose)
    def checked_compose(self: Any, config_name: str | None, overrides: list[str], *rest: Any, **options: Any) -> Any:
        elsewhere = _elsewhere(self, config_name, overrides)
        if elsewhere:
            raise ConfigError([f"{elsewhere}: {ELSEWHERE}"])
        composed = compose(self, config_name, overrides, *rest, **options)
        found = problems(composed)
        if found:
            raise ConfigError(found)
        return composed

    files.load_config = checked_read
    ConfigLoaderImpl.load_configuration = checked_compose  # type: ignore[method-assign]


_install()
