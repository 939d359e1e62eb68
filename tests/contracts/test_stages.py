"""dvc.yaml tells the truth: each stage declares exactly the sections and the code that can change its result."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from finespun.config.compose import declared_dependencies, declared_sections
from finespun.config.sections import RunConfig
from helpers import ROOT, Project

PIPELINE = ROOT / "dvc.yaml"
STAGES: dict[str, Any] = yaml.safe_load(PIPELINE.read_text())["stages"]
LATER = [name for name in STAGES if name != "configure"]
SECTIONS = set(RunConfig.model_fields)
DYNAMIC = {"task": "finespun.tasks", "strategy": "finespun.strategies"}  # packages of which targets.build imports a module

# Modules that a stage imports and need not declare, each with the reason why a change of it cannot make a result stale.
EXCEPTED = {
    "finespun.__init__": "a version number",
    "finespun.*.__init__": "docstrings",
    "finespun.cores": "how many share the work, not what comes of it",
    "finespun.errors": "words of messages",
    "finespun.masking": "hides secrets in messages",
    "finespun.artifacts": "paths; dvc.yaml itself names them",
    "finespun.failures": "words of messages",
    "finespun.files": "reads our own files whole, or fails",
    "finespun.kept": "keeps files whole, or makes them anew",
    "finespun.config.check": "all that it lets through is in build/config.yaml",
    "finespun.config.compose": "all that it composes is in build/config.yaml",
    "finespun.config.guard": "lets a composed configuration through, or not",
    "finespun.config.kinds": "finds the class that build/config.yaml names",
    "finespun.config.lightning": "all that it lets through is in build/config.yaml",
    "finespun.config.reading": "lets a file of settings through, or not",
    "finespun.config.sections": "all defaults are written into build/config.yaml",
    "finespun.config.targets": "finds the class that build/config.yaml names",
    "finespun.stages.finished": "puts back what a stage made of the same inputs, by its digest",
    "finespun.stages.launching": "where the work is done, not what it is",
    "finespun.stages.slurm": "where the work is done, not what it is",
    "finespun.tracking.addresses": "watches from the side",
    "finespun.tracking.client": "watches from the side",
    "finespun.tracking.outbox.delivery": "watches from the side",
    "finespun.tracking.outbox.journal": "watches from the side",
    "finespun.tracking.outbox.leftovers": "watches from the side",
    "finespun.tracking.model_run": "watches from the side",
    "finespun.tracking.names": "watches from the side",
    "finespun.report.card": "words beside the model",
    "finespun.report.words": "words beside the model",
    "finespun.tracking.system_metrics": "watches from the side",
    "finespun.tracking.outbox.outbox": "watches from the side",
    "finespun.tracking.earlier": "fetches what build/config.yaml names",
    "finespun.tracking.lineage": "watches from the side",
    "finespun.tracking.served.log_model": "watches from the side",
    "finespun.tracking.trials.studies": "ends a trial early, or not",
    "finespun.tracking.trials.trial": "watches from the side",
    "finespun.tracking.registry": "watches from the side",
    "finespun.tracking.untracked": "watches from the side",
}


def source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module).read_text(encoding="utf-8"))


@cache
def closure(stage: str) -> frozenset[str]:
    """Every module of ours that a stage imports, at once or later, and those that its sections may name."""
    graph = grimp.build_graph("finespun", cache_dir=None, exclude_type_checking_imports=True)
    start = {f"finespun.stages.{stage}"}
    start |= {
        module
        for name, package in DYNAMIC.items()
        if name in sections_read(stage)
        for module in graph.find_descendants(package)  # also of rooms, such as tasks.ranking and tasks.sound
    }
    found = set(start)
    for module in start:
        found |= graph.find_upstream_modules(module)
    return frozenset(found)


class Code:
    """Names of one module: its functions and classes, and what it imports from others of ours."""

    def __init__(self, module: str) -> None:
        self.definitions = {node.name: node for node in tree(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        self.imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in ast.walk(tree(module))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finespun")
            for alias in node.names
        }


@cache
def code(module: str) -> Code:
    return Code(module)


def mentioned(module: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yields (module, name) of our functions and classes that a piece of code mentions."""
    here = code(module)
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            if each.id in here.definitions:
                yield module, each.id
            elif each.id in here.imported:
                yield here.imported[each.id]
        elif isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in here.imported:
            package, name = here.imported[each.value.id]
            yield f"{package}.{name}", each.attr


def attributes_of_config(node: ast.AST) -> set[str]:
    """What is read as `config.NAME` by functions whose `config` is the run's: an argument, or what the stage was given."""
    functions = [each for each in ast.walk(node) if isinstance(each, ast.FunctionDef)]
    given = [
        each for each in functions if "config: RunConfig" in ast.unparse(each.args) or "= read_for_stage(" in ast.unparse(each)
    ]
    return {
        each.attr
        for function in given
        for each in ast.walk(function)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "config"
    }


@cache
def sections_read(stage: str) -> frozenset[str]:
    """Sections that are read as `config.SECTION` by whatever can be reached from a stage's `run`, function by function."""
    waiting, seen = [(f"finespun.stages.{stage}", "run")], set[tuple[str, str]]()
    read: set[str] = set()
    while waiting:
        place = waiting.pop()
        if place in seen or not _is_module(place[0]) or place[1] not in code(place[0]).definitions:
            continue
        seen.add(place)
        node = code(place[0]).definitions[place[1]]
        read |= attributes_of_config(node)
        waiting += mentioned(place[0], node)
    return frozenset(read & SECTIONS)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_every_stage_of_dvc_yaml_has_a_module_and_the_other_way_round() -> None:
    helpers = {"__init__", "__main__", "finished", "launching", "measuring", "saving", "slurm"}
    assert {path.stem for path in (ROOT / "src" / "finespun" / "stages").glob("*.py")} - helpers == set(STAGES)


@pytest.mark.parametrize("stage", LATER)
def test_a_stage_declares_exactly_the_sections_that_it_reads(stage: str) -> None:
    declared = declared_sections(PIPELINE, stage)
    assert Counter(declared) == Counter(set(declared))
    assert sections_read(stage) - {"runtime"} == set(declared)


def test_what_stages_share_reads_no_more_than_each_of_them_declares() -> None:
    read = attributes_of_config(tree("finespun.stages.measuring"))
    assert read & SECTIONS >= {"task", "evaluation"}
    for stage in ("evaluate", "test"):
        assert read & SECTIONS - {"runtime"} <= set(declared_sections(PIPELINE, stage))


def test_configure_watches_every_dial_and_composes_every_section() -> None:
    dials = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert sorted(STAGES["configure"]["params"]) == sorted(dials)
    assert set(dials) - {"experiment"} == SECTIONS


@pytest.mark.parametrize("stage", LATER)
def test_runtime_is_declared_by_no_stage_that_could_be_rerun_for_it(stage: str) -> None:
    assert "runtime" in SECTIONS
    assert "runtime" not in declared_sections(PIPELINE, stage)


def is_under(path: Path, dependencies: list[str]) -> bool:
    return any(path.is_relative_to(ROOT / dependency) for dependency in dependencies)


def is_excepted(module: str) -> bool:
    name = f"{module}.__init__" if source(module).name == "__init__.py" else module
    return name in EXCEPTED or (name.endswith(".__init__") and name.count(".") > 1)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_can_change_its_result(stage: str) -> None:
    """What changes the fine-tuned model need not be named again: run.json holds the digests of all that `finetune` reads."""
    dependencies = declared_dependencies(PIPELINE, stage)
    if "models/finetuned" in dependencies:
        dependencies += [each for each in declared_dependencies(PIPELINE, "finetune") if each.startswith("src/")]
    modules = closure(stage)
    assert len(modules) > 5
    missing = sorted(module for module in modules if not is_excepted(module) and not is_under(source(module), dependencies))
    assert not missing, f"{stage}: dvc.yaml does not name the code of {missing}"


def test_the_model_records_the_digests_of_the_code_that_made_it() -> None:
    definitions = code("finespun.stages.finetune").definitions
    text = ast.unparse(definitions["finetune"])
    assert "inputs = _inputs(config, artifacts)" in text
    assert "return (folder, input_digests(artifacts, 'finetune') |" in ast.unparse(definitions["_inputs"])
    assert "'inputs': inputs" in text


def test_every_exception_is_a_module_that_a_stage_imports() -> None:
    modules = set[str]().union(*(closure(stage) for stage in STAGES))
    named = {name.removesuffix(".__init__") for name in EXCEPTED if "*" not in name}
    assert named <= modules | {"finespun"}


def docstring_only(path: Path) -> bool:
    return all(isinstance(node, ast.Expr | ast.Assign) for node in ast.parse(path.read_text()).body)


def test_package_files_hold_words_alone() -> None:
    files = list((ROOT / "src" / "finespun").rglob("__init__.py"))
    assert len(files) > 8
    assert [path for path in files if not docstring_only(path)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_own_file_and_on_nothing_that_is_not_there(stage: str) -> None:
    dependencies = declared_dependencies(PIPELINE, stage)
    assert f"src/finespun/stages/{stage}.py" in dependencies
    assert dependencies == sorted(set(dependencies))
    assert [each for each in dependencies if each.startswith(("src", "conf")) and not (ROOT / each).exists()] == []


def test_the_test_split_is_read_by_test_alone() -> None:
    reading = {
        stage
        for stage in STAGES
        for each in declared_dependencies(PIPELINE, stage)
        if Path("data/prepared/test.arrow").is_relative_to(each)
    }
    assert reading == {"test"}
    assert "models/finetuned" in declared_dependencies(PIPELINE, "test")


def test_configuring_and_preparing_import_nothing_heavy(project: Project) -> None:
    program = """
import sys
from finespun.artifacts import find_project, Artifacts
from finespun.stages import __main__, configure
here = Artifacts(project=find_project(), out=find_project())
configure.run(here)
after_configure = {name.partition(".")[0] for name in sys.modules}
from finespun.stages import prepare
prepare.run(here)
print("configure", *after_configure)
print("prepare", *{name.partition(".")[0] for name in sys.modules})
"""
    done = project.run(sys.executable, "-c", program)
    imported = {words[0]: set(words[1:]) for line in done.stdout.splitlines() if (words := line.split())}
    heavy = {"torch", "pytorch_lightning", "lightning_fabric", "mlflow", "transformers", "sklearn", "matplotlib"}
    assert {"finespun", "hydra", "pydantic"} <= imported["configure"]
    assert {"tokenizers", "pyarrow"} <= imported["prepare"]
    assert not imported["configure"] & (heavy | {"pyarrow", "tokenizers"})
    assert not imported["prepare"] & heavy
    assert (project.folder / "data" / "prepared" / "train.arrow").is_file()


def test_each_stage_that_computes_is_a_job_of_lightnings() -> None:
    """`fit`, `validate` and `test` of a Trainer are each reached from a stage, with the one module and the one data module."""
    calls = {
        node.attr
        for module in ("finespun.training.lightning.trainer", "finespun.evaluation.predict")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trainer"
    }
    assert {"fit", "validate", "test"} <= calls
    for stage in ("finetune", "evaluate", "test"):
        assert {"finespun.training.lightning.fine_tuner", "finespun.training.lightning.data_module"} <= closure(stage)
