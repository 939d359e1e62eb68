"""YAML that is too large for memory, or that two readers of YAML understand differently: reported with file and line."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

import pytest

from finespun.artifacts import Artifacts
from finespun.config.compose import compose, read_for_stage, write
from finespun.config.reading import MOST_BYTES
from finespun.errors import ConfigError
from helpers import ROOT

TITLES = "confusion_title: c\ntraining_title: t\n"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
MERGED = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 9))
DOUBLED = "v0: xxxxxxxxxx\n" + "".join(f"v{n}: ${{.v{n - 1}}}${{.v{n - 1}}}\n" for n in range(1, 40))
LISTS = "v0: [x]\n" + "".join(f"v{n}:\n" + f"  - ${{report.v{n - 1}}}\n" * 10 for n in range(1, 12))
NESTED = "".join(f"k{n}: v{n}\nv{n + 1}: ${{report.${{report.k{n}}}}}${{report.${{report.k{n}}}}}\n" for n in range(40))

CASES: dict[str, tuple[str, str]] = {  # what stands in conf/report/default.yaml, and what is said of it
    "aliases of aliases": (TITLES + LAUGHS, "conf/report/default.yaml: its aliases (*name) repeat "),
    "merged aliases of aliases": (TITLES + MERGED, "conf/report/default.yaml: its aliases (*name) repeat "),
    "an alias of itself": ("confusion_title: &a [*a]\n", "conf/report/default.yaml: an alias stands inside its own anchor"),
    "interpolations of interpolations": (TITLES + DOUBLED, "its interpolations make "),
    "lists of interpolations": (TITLES + LISTS, "its interpolations make "),
    "interpolations inside interpolations": (TITLES + NESTED, "interpolations stand inside others; at most"),
    "deep": (f"confusion_title: {'[' * 60}{']' * 60}\n", "is nested deeper than 50 levels"),
    "very deep": (f"confusion_title: {'{a: ' * 5000}", "is nested deeper than 50 levels"),
    "a long value": (f"confusion_title: {'x' * 70_000}\n", "conf/report/default.yaml:1: a value of 70,000 characters"),
    "a long number": (f"confusion_title: {'9' * 5000}\n", "conf/report/default.yaml:1: a number of 5,000 digits"),
    "a large file": (TITLES + "# " + "x" * MOST_BYTES, "conf/report/default.yaml: has 1,0"),
    "a key twice": (f"{TITLES}confusion_title: d\n", "default.yaml:1: the key 'confusion_title' stands there twice"),
    "a number twice as a key": (f"{TITLES}a: {{1: x, 1: y}}\n", "conf/report/default.yaml:3: the key '1' stands there twice"),
    "yes": ("confusion_title: yes\n", "default.yaml:1: yes is the word in some readers of YAML and true in others"),
    "Off in a list": (f"{TITLES}a: [on, Off]\n", "Off is the word in some readers of YAML and false in others"),
    "no as a key": (f"{TITLES}no: 1\n", "default.yaml:3: no is the word in some readers"),
    "a time of day": ("confusion_title: 12:30:45\n", "12:30:45 is a number of base 60 in YAML; write '12:30:45' in quotes"),
    "a ratio": (f"{TITLES}a: 1:30.5\n", "1:30.5 is a number of base 60 in YAML"),
    "leading zeros": ("confusion_title: 0755\n", "0755 is the octal number 493 in YAML; write 493, or '0755' in quotes"),
    "a tab": ("confusion_title:\n\ta: 1\n", "conf/report/default.yaml: cannot be read as YAML: while scanning"),
    "a tag of Python": ("confusion_title: !!python/object/apply:os.system [ls]\n", "default.yaml:1: !!python/object/apply:os"),
    "a set": ("confusion_title: !!set {a, b}\n", "conf/report/default.yaml:1: !!set is no text"),
    "bytes": ("confusion_title: !!binary aGk=\n", "conf/report/default.yaml:1: !!binary is no text"),
    "another encoding": ("confusion_title: é\n", "conf/report/default.yaml: is not UTF-8"),
    "a null byte": ("confusion_title: a\0b\n", "conf/report/default.yaml: cannot be read as YAML"),
    "two documents": (f"{TITLES}---\na: 1\n", "expected a single document"),
    "a list": ("- confusion_title\n", "conf/report/default.yaml: holds no keys"),
    "a word": ("confusion_title\n", "conf/report/default.yaml: holds no keys"),
    "conflict marks": (f"<<<<<<< HEAD\n{TITLES}=======\nconfusion_title: d\n>>>>>>> other\n", "conf/report/default.yaml"),
}  # fmt: skip


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return Artifacts(project=tmp_path, out=tmp_path)


def write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1" if "é" in text else "utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_settings_that_are_too_large_or_unclear_are_reported_with_their_file(artifacts: Artifacts, name: str) -> None:
    text, message = CASES[name]
    write_text(artifacts.conf / "report" / "default.yaml", text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError) as caught:
        compose(artifacts)
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (1024 if sys.platform == "linux" else 1024**2)
    assert used < 200, "MiB"


@pytest.mark.parametrize(
    "name", ["aliases of aliases", "a key twice", "yes", "another encoding", "very deep", "conflict marks"]
)
@pytest.mark.parametrize("file", ["params.yaml", "build/config.yaml", "dvc.yaml"])
def test_the_other_files_of_settings_are_read_as_carefully(artifacts: Artifacts, file: str, name: str) -> None:
    write(*compose(artifacts), artifacts.config)
    text, _ = CASES[name]
    write_text(artifacts.project / file, text)
    with pytest.raises(ConfigError) as caught:
        compose(artifacts) if file == "params.yaml" else read_for_stage(artifacts, "finetune")
    assert file.rpartition("/")[2] in str(caught.value)


def test_the_advice_works_and_ordinary_yaml_is_left_alone(artifacts: Artifacts) -> None:
    path = artifacts.conf / "report" / "default.yaml"
    path.write_text("\ufeff# comment\nconfusion_title: &title 'yes'\ntraining_title: *title\n")
    assert compose(artifacts)[0].report.training_title == "yes"
    for written, value in {
        "'0755'": "0755",
        "'12:30:45'": "12:30:45",
        '"on"': "on",
        "2020-01-01": "2020-01-01",
        "08": "08",
    }.items():
        path.write_text(f"confusion_title: {written}\ntraining_title: t\n")
        assert compose(artifacts)[0].report.confusion_title == value
    optimizer = artifacts.conf / "optimizer" / "adamw.yaml"
    optimizer.write_text("_target_: torch.optim.AdamW\nlr: 1e-4\nbetas: [&b 0.9, *b]\n")
    assert compose(artifacts)[0].optimizer.betas == (0.9, 0.9)


@pytest.mark.parametrize("number", [".inf", ".nan", "1e999"])
def test_numbers_are_finite(artifacts: Artifacts, number: str) -> None:
    optimizer = artifacts.conf / "optimizer" / "adamw.yaml"
    optimizer.write_text(f"_target_: torch.optim.AdamW\nlr: {number}\n")
    with pytest.raises(ConfigError, match=r"conf/optimizer/adamw.yaml: lr: "):
        compose(artifacts)


def test_what_looks_like_an_interpolation_stays_text_once_it_is_composed(artifacts: Artifacts) -> None:
    (artifacts.conf / "report" / "default.yaml").write_text("confusion_title: '\\${seed}'\ntraining_title: t\n")
    write(*compose(artifacts), artifacts.config)
    assert read_for_stage(artifacts, "evaluate").report.confusion_title == "${seed}"
