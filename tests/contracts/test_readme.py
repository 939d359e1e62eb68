"""README.md says nothing that is not so: its commands exist, its paths exist, and no part of the project is left out."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import yaml

from finespun.cli.main import main
from helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")  # has the list of files
PROJECT_FILES = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}  # capitals that are no placeholders
EXAMPLES = {"conf/data/tickets.yaml", "conf/data/pets.yaml"}  # files that the reader is told to write
UNMENTIONED = {*PROJECT_FILES, ".gitignore", ".dvcignore"}  # itself, and lists that git and DVC look for
SUFFIXES = (".py", ".yaml", ".md", ".toml", ".lock")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Lines of the bash blocks without comments, and everything between single backticks."""
    blocks = [text for language, text in FENCED.findall(README) if language in {"bash", "sh", "console"}]
    lines = [line.partition(" #")[0].strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in (*lines, *spans()) if line and not line.startswith("#")]


def spans() -> list[str]:
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", README))


def trees() -> list[str]:
    """Blocks without a language: the list of files."""
    return [text for language, text in FENCED.findall(ARCHITECTURE) if not language]


@cache
def tracked() -> frozenset[str]:
    return frozenset(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


@cache
def results() -> frozenset[str]:
    """What dvc.yaml says that stages make."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    outs = [out for stage in stages for out in (*stage.get("outs", []), *stage.get("metrics", []))]
    return frozenset(out if isinstance(out, str) else next(iter(out)) for out in outs)


def paths() -> set[str]:
    """What is in backticks, or begins a line of a tree, and looks like a file or a folder of this repository."""
    tops = {name.partition("/")[0] for name in tracked()} | {"mlruns", "outputs", "multirun", "models", "reports", ".finespun"}
    plain = {span.rstrip("/") for span in spans() if re.fullmatch(r"[\w.][\w./-]*", span)}
    named = {
        path
        for path in plain
        if ("/" in path and path.partition("/")[0] in tops) or path.endswith(SUFFIXES)
        if not any(Path(part).stem.isupper() and part not in PROJECT_FILES for part in path.split("/"))
    }
    return named | {word for word in re.findall(r"[\w./-]+", "".join(trees())) if word.endswith(SUFFIXES)}


def is_there(path: str) -> bool:
    if any((base / path).exists() for base in (ROOT, ROOT / "src" / "finespun")) or path in results():
        return True
    if any(out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in results()):
        return True
    if "/" not in path and any(Path(name).name == path for name in tracked()):
        return True
    return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for line in commands() for words in re.findall(r"\bmake((?: [a-z][\w-]*)+)", line) for name in words.split()}
    assert {"run", "test"} <= named
    assert named - targets == set()


def test_every_command_of_finespun_exists() -> None:
    named = {name for line in commands() for name in re.findall(r"(?:^|[;&|] ?|bin/)finespun ([a-z][\w-]*)", line)}
    assert named
    assert named - set(main.commands) == set()


def test_every_path_exists_or_is_a_result() -> None:
    assert len(paths()) >= 5
    assert paths() >= EXAMPLES
    assert sorted(path for path in paths() - EXAMPLES if not is_there(path)) == []


def test_every_link_and_picture_leads_somewhere() -> None:
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in target}
    assert targets
    assert sorted(target for target in targets if not (ROOT / target).exists()) == []


def test_every_file_at_the_top_and_every_package_is_mentioned() -> None:
    at_the_top = {name for name in tracked() if "/" not in name} - UNMENTIONED
    ours = {Path(name).relative_to("src/finespun") for name in tracked() if name.startswith("src/finespun/")}
    packages = {f"{path.parts[0]}/" for path in ours if len(path.parts) > 1}
    modules = {path.name for path in ours if len(path.parts) == 1 and not path.name.startswith("__")}
    assert len(packages) >= 9
    assert {"dvc.yaml", "params.yaml", "Makefile"} <= at_the_top
    wanted = at_the_top | packages | modules
    assert sorted(name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w.-])", ARCHITECTURE)) == []
