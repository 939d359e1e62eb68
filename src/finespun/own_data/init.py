"""`finespun init`: from a file on disk to a project that `dvc repro` runs; what it saw, what it wrote, what to do next."""

from __future__ import annotations

import filecmp
import re
import shlex
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.check import ALLOWED, CHOICE, SPLIT_ROLES, choices
from finespun.config.compose import read_dials
from finespun.config.sections import DataConfig, ModelConfig, Target
from finespun.data.proposal.columns import Column, columns_of
from finespun.data.proposal.files import Seen, look
from finespun.data.proposal.tasks import GUESS, SURE, Reading, reading_of
from finespun.data.proposal.written import data_file, experiment_file, seen_lines, set_dials
from finespun.data.sources.source import Source
from finespun.errors import ConfigError, DataError, FinespunError, ModelError, did_you_mean, listed
from finespun.kept import write_whole
from finespun.models.addresses import processor_folder
from finespun.tasks.base import roles_of

# Of conf/model, for what a task reads, or writes.
MODELS = {"image": "mobilenet_v2", "audio": "whisper_tiny_en", "text": "minilm", "writing": "smollm2"}
TOKENS_A_WORD = 1.4


@dataclass(kw_only=True)
class Wishes:
    """What the user says; the rest is proposed."""

    name: str | None = None
    task: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    ask: Callable[[str, str], str] | None = None  # question, proposal -> answer; None: take every proposal


def initialise(artifacts: Artifacts, given: Path, wishes: Wishes, say: Callable[[str], None]) -> None:
    """Looks at data, writes `conf/data/NAME.yaml` and sets params.yaml.

    Raises:
        ConfigError: what the user says is no name, task or role.
        DataError: the data cannot be read, nothing in them could be learnt, or a file is there already.
    """
    if wishes.name is not None and not CHOICE.fullmatch(wishes.name):
        raise ConfigError([f"--name: {wishes.name!r} is no name of a file in conf/: {ALLOWED}"])
    seen = look(given)
    columns = columns_of(seen.rows)
    found = _wished(columns, seen, wishes, artifacts)
    name = wishes.name or _name_after(given)
    if wishes.ask:
        name = wishes.ask("name of the data (conf/data/NAME.yaml)", name)
    target = artifacts.conf / "data" / f"{name}.yaml"
    if target.exists() and not wishes.force:
        raise DataError(f"conf/data/{name}.yaml: is there already; say --name for another, or --force to write it anew")
    path, copied = _brought(given, artifacts, force=wishes.force)
    if copied and given.is_file():
        _bring_files(given, seen, found, artifacts.project / path)
    dials = _dials(artifacts, name, found.task) | _experiment(artifacts, name, found.task, seen, force=wishes.force)
    write_whole(target, data_file(path, seen, found))
    text = artifacts.params.read_text(encoding="utf-8")
    write_whole(artifacts.params, set_dials(text, dials))
    say(f"{given}\n" + "\n".join(f"  {line}" for line in [*seen_lines(seen, found), *_lengths(columns, found, artifacts)]))
    if copied:
        say(f"copied to {path}, where DVC sees it")
    for line in _last_words(artifacts, name, path, found, dials):
        say(line)


def _last_words(artifacts: Artifacts, name: str, path: str, found: Reading, dials: Mapping[str, str]) -> Iterator[str]:
    """Yields what was written, and what to look at."""
    changed = ", ".join(f"{key}: {value}" for key, value in dials.items())
    more = _writes(_task(artifacts, found.task)) and "model" not in dials
    by_hand = "; set model there to one that writes (docs/language_models.md)" if more else ""
    yield f"wrote conf/data/{name}.yaml; set in params.yaml: {changed}{by_hand}"
    if dials.get("experiment") == name:
        said = (artifacts.conf / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[-1]
        yield f"few rows need more epochs: conf/experiment/{name}.yaml has {said}"
    elif (kept := artifacts.conf / "experiment" / f"{name}.yaml").exists():
        yield f"conf/experiment/{kept.name} is there already and stays as it is; `experiment: {name}` in params.yaml takes it"
    if found.certainty != SURE:
        yield f"look at conf/data/{name}.yaml: what it says is {'only ' if found.certainty == GUESS else ''}{found.certainty}"
    for task, role, column in found.rivals:
        said = shlex.join(["--task", task, "--column", f"{role}={column}", path])
        yield f"{column!r} is to be learnt instead? finespun init --force {said}"


def _name_after(given: Path) -> str:
    """Returns the name of a file as Hydra and YAML take names: ASCII, begun by a letter, no number, date or truth value."""
    plain = unicodedata.normalize("NFKD", given.resolve().name.split(".")[0]).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"\W+", "_", plain).strip("_")
    return name if CHOICE.fullmatch(name) and yaml.safe_load(name) == name else f"data_{name}".rstrip("_")


def _wished(columns: list[Column], seen: Seen, wishes: Wishes, artifacts: Artifacts) -> Reading:
    """Returns the most likely reading, with what the user says instead."""
    try:
        found = reading_of(columns, folder=seen.kind in {"images", "recordings"})
    except DataError:
        if not (wishes.task and wishes.columns):
            raise
        found = Reading(task=wishes.task, columns={})
    task = _chosen_task(found.task, wishes, choices(artifacts.conf)["task"])
    if task != found.task:
        found = Reading(task=task, columns=found.columns, reasons=["the task was said"], labels=found.labels)
    roles = roles_of(_task(artifacts, task))
    known = {*roles, *SPLIT_ROLES}
    unknown = [
        f"--column: {role!r} is no role of {task}{did_you_mean(role, known)}; it has: {listed(known)}; --task names another"
        for role in wishes.columns
        if role not in known
    ]
    if unknown:
        raise ConfigError(unknown)
    fixed = {role: column for role, column in found.columns.items() if role in known} | _split_up(wishes.columns)
    names = [column.name for column in columns]
    for role in (each for each, how in roles.items() if how.needed):
        _choose_column(role, fixed, names, wishes)
    wrong = [each for given in fixed.values() for each in ([given] if isinstance(given, str) else given) if each not in names]
    if wrong:
        raise DataError(f"--column: there is no column {wrong[0]!r}{did_you_mean(wrong[0], names)}; there are: {listed(names)}")
    found.columns = fixed
    if "label" in fixed:
        found.labels = next(column.counts for column in columns if column.name == fixed["label"])
    return found


def _chosen_task(proposed: str, wishes: Wishes, known: list[str]) -> str:
    task = wishes.task or proposed
    if wishes.ask:
        task = wishes.ask(f"task ({', '.join(known)})", task)
    if task not in known:
        raise ConfigError([f"--task: there is no conf/task/{task}.yaml{did_you_mean(task, known)}; there are: {listed(known)}"])
    return task


def _choose_column(role: str, fixed: dict[str, Any], names: list[str], wishes: Wishes) -> None:
    if wishes.ask and role not in wishes.columns:
        proposed = fixed.get(role, "")
        shown = proposed if isinstance(proposed, str) else ",".join(proposed)
        fixed |= _split_up({role: wishes.ask(f"column of {role} ({', '.join(names)})", shown)})
    if role not in fixed:
        raise DataError(f"no column of {role} was found; say --column {role}=NAME; there are: {listed(names)}")


def _split_up(columns: Mapping[str, str]) -> dict[str, Any]:
    """Several columns of one role are said with commas between them."""
    return {role: given.split(",") if "," in given else given for role, given in columns.items()}


def _task(artifacts: Artifacts, name: str) -> Any:
    said = yaml.safe_load((artifacts.conf / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    said.pop("defaults", None)
    return targets.build("task", Target.model_validate(said))


def _brought(given: Path, artifacts: Artifacts, *, force: bool) -> tuple[str, bool]:
    """Returns the path for `conf/data`, and whether the data were copied into `data/raw`, where DVC looks for changes."""
    project, raw = artifacts.project.resolve(), artifacts.raw[0]
    real = given.resolve()
    if real.is_relative_to(raw.resolve()):
        return real.relative_to(project).as_posix(), False
    place = raw / real.name
    if place.exists() and _same(real, place):
        return place.relative_to(artifacts.project).as_posix(), False
    if place.exists() and not force:
        raise DataError(f"{place}: is there already, and {given} is another; say --force to write it anew, or name that one")
    place.parent.mkdir(parents=True, exist_ok=True)
    if real.is_dir():
        shutil.copytree(real, place, dirs_exist_ok=True)
    else:
        shutil.copy2(real, place)
    return place.relative_to(artifacts.project).as_posix(), True


def _bring_files(table: Path, seen: Seen, found: Reading, brought: Path) -> None:
    """Copies the images or recordings that a table names relative to itself; what lies elsewhere, the checks report."""
    column = next((str(found.columns[role]) for role in ("image", "audio") if role in found.columns), None)
    if column is None:
        return
    source = Source(DataConfig.model_validate({"path": str(table.resolve()), "columns": {}, **seen.settings}), table.parent)
    for line in source():
        name = str(line.row.get(column) or "")
        file, target = table.parent / name, brought.parent / name
        if name and ".." not in Path(name).parts and not Path(name).is_absolute() and file.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)


def _same(one: Path, other: Path) -> bool:
    """Whether two files, or all files of two folders, hold the same bytes."""
    if one.is_dir():
        inside = [{file.relative_to(each) for file in each.rglob("*") if file.is_file()} for each in (one, other)]
        return inside[0] == inside[1] and all(_same(one / file, other / file) for file in inside[0])
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def _dials(artifacts: Artifacts, name: str, task: str) -> dict[str, str]:
    """Returns what params.yaml must say: also another model, where the one that is set does not fit the task."""
    now = read_dials(artifacts.params)
    dials = {"data": name, "task": task}
    if str(now.get("experiment", "none")) != "none":
        dials["experiment"] = "none"  # it was made for other data
    asked = _task(artifacts, task)
    model = str(now.get("model"))
    if not _fits(artifacts, model, asked) or (_writes(asked) and model == MODELS["text"]):
        kind = next((kind for kind in ("image", "audio") if kind in roles_of(asked)), "writing" if _writes(asked) else "text")
        other = MODELS[kind] if _fits(artifacts, MODELS[kind], asked) else None
        dials |= {"model": other} if other else {}
    return dials


def _experiment(artifacts: Artifacts, name: str, task: str, seen: Seen, *, force: bool) -> dict[str, str]:
    """Writes what few rows need instead of the epochs and batches of conf/trainer; returns its dial.

    Nothing where the user chose a trainer, or has an experiment of that name.
    """
    trainer = str(read_dials(artifacts.params).get("trainer"))
    file = artifacts.conf / "experiment" / f"{name}.yaml"
    if trainer != "default" or not _task(artifacts, task).from_logits or (file.exists() and not force):
        return {}
    shipped = yaml.safe_load((artifacts.conf / "trainer" / f"{trainer}.yaml").read_text(encoding="utf-8"))
    text = experiment_file(seen, epochs=shipped["max_epochs"], batch_size=shipped["batch_size"])
    if text is None:
        return {}
    write_whole(file, text)
    return {"experiment": name}


def _writes(task: Any) -> bool:
    """Whether a task needs a language model."""
    return bool(task.auto_class == "AutoModelForCausalLM")


def _fits(artifacts: Artifacts, model: str, task: Any) -> bool:
    """Whether a checkpoint has what a task encodes rows with."""
    path = artifacts.conf / "model" / f"{model}.yaml"
    try:
        config = ModelConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        task.encoder(processor_folder(config, artifacts.project))
    except (OSError, ValueError, FinespunError) as error:
        return not isinstance(error, ModelError | ConfigError | OSError | ValueError)
    return True


def _lengths(columns: list[Column], found: Reading, artifacts: Artifacts) -> list[str]:
    """Returns how long the texts are, and what of the model's window they take."""
    column = next((each for each in columns if each.name == found.columns.get("text")), None)
    if column is None or not column.texts:
        return []
    words = sorted(len(text.split()) for text in column.texts)
    often, most = words[int(0.95 * (len(words) - 1))], words[-1]
    lines = [f"lengths: {sum(words) / len(words):.0f} words on average, 95 % have at most {often:,}, the longest {most:,}"]
    longest = getattr(_task(artifacts, found.task), "max_length", None)
    needed = min(512, -int(-often * TOKENS_A_WORD // 32) * 32)
    if longest and needed > longest:
        lines.append(f"  longer than task.max_length: {longest} tokens: set about {needed} in conf/task/{found.task}.yaml")
    return lines
