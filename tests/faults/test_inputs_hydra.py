"""Configurations that name code: in Hydra's own section, in ours, on the command line, in files elsewhere. None of it runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from finespun import explore as exploring
from finespun.artifacts import Artifacts
from finespun.config.compose import compose, read_for_stage, write
from finespun.config.guard import ELSEWHERE
from finespun.config.targets import load
from finespun.errors import ConfigError
from helpers import ROOT

EVIL = "import pathlib\npathlib.Path(__file__).with_name('PWNED').touch()\nclass Net: ...\ndef call(*_, **__): ...\n"


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """A project's settings; `evil` is a module on the path that leaves PWNED behind when it is imported."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.yaml").write_text("_target_: evil.call\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["finespun"])
    monkeypatch.setattr(exploring, "run_and_wait", lambda *_, **__: pytest.fail("a stage was started"))
    return Artifacts(project=tmp_path, out=tmp_path)


def nothing_ran(artifacts: Artifacts) -> None:
    assert not (artifacts.project / "PWNED").exists()
    assert "evil" not in sys.modules
    assert not (artifacts.project / "outputs").exists(), "Hydra wrote before it was refused"


COMMAND_LINES: dict[str, tuple[list[str], str]] = {
    "callback": (["+hydra.callbacks.x={_target_:evil.call}"], "hydra.callbacks.x._target_: evil.call is not allowed"),
    "unpickling callback": (["+hydra.callbacks.x={_target_:torch.load,f:w.pth}"], "torch.load is not allowed"),
    "deep in a callback": (["+hydra.callbacks.x={a:{b:[{_target_:evil.call}]}}"], "hydra.callbacks.x.a.b.0._target_: evil"),
    "through our module": (["+hydra.callbacks.x._target_=finespun.tracking.trials.trial.os.system"], "trial.os.system is not"),
    "replaced by another": (["+hydra.callbacks.x._target_=hydra.utils.get_method"], "hydra.utils.get_method is not"),
    "no text": (["+hydra.callbacks.x._target_=[evil.call]"], "is not allowed"),
    "interpolated": (
        ["+hydra.callbacks.x={_target_:'${report.confusion_title}'}", "report.confusion_title=evil.call"],
        "hydra.callbacks.x._target_: evil.call is not allowed",
    ),
    "whole section": (["+hydra={callbacks:{x:{_target_:evil.call}}}"], "hydra.callbacks.x._target_: evil.call"),
    "launcher": (["-m", "hydra.launcher._target_=evil.call", "seed=1,2"], "hydra.launcher._target_: evil.call is not allowed"),
    "sweeper": (["-m", "hydra.sweeper._target_=evil.call", "seed=1,2"], "hydra.sweeper._target_: evil.call is not allowed"),
    "sampler of a sweeper": (["-m", "+hydra.sweeper.sampler={_target_:evil.call}", "seed=1"], "hydra.sweeper.sampler._target_"),
    "function of a sweeper": (["-m", "+hydra.sweeper.custom_search_space=evil.call", "seed=1"], "custom_search_space: evil"),
    "handler": (["hydra.job_logging.handlers.console.class=evil.call"], "handlers.console.class: evil.call is not allowed"),
    "handler of Hydra's log": (["hydra.hydra_logging.handlers.console.class=evil.call"], "hydra.hydra_logging.handlers"),
    "stream": (["hydra.job_logging.handlers.console.stream=ext://evil.Net"], "ext://evil.Net is not allowed"),
    "queue": (["+hydra.job_logging.handlers.console.queue=evil.call"], "handlers.console.queue: evil.call is not allowed"),
    "environment of a trial": (["+hydra.job.env_set.PYTHONPATH=."], "hydra.job.env_set.PYTHONPATH: is recorded"),
    "copied environment": (["hydra.job.env_copy=[PATH]"], "hydra.job.env_copy: would be recorded"),
    "another folder": (["hydra.job.chdir=true"], "hydra.job.chdir: is true"),
    "search path": (["hydra.searchpath=[pkg://evil]"], ELSEWHERE),
    "added search path": (["+hydra.searchpath=[file://elsewhere]"], ELSEWHERE),
    "more settings": (["--config-dir", "elsewhere", "+optimizer=x"], ELSEWHERE),
    "more settings, shortened": (["--config-d=elsewhere"], ELSEWHERE),
    "more settings, short": (["-cd=elsewhere"], ELSEWHERE),
    "other settings": (["--config-path", "elsewhere"], ELSEWHERE),
    "another file": (["--config-name", "../elsewhere/x"], "where settings are read from"),
    "a pickle of Hydra's": (["--experimental-rerun", "job.pickle"], "would read a pickle"),
    "a pickle of Hydra's, shortened": (["--exp=job.pickle"], "would read a pickle"),
    "optimizer": (["optimizer._target_=evil.call"], "evil.call is not allowed"),
    "optimizer of an allowed package": (["optimizer._target_=transformers.pipeline"], "transformers.pipeline does not exist"),
    "scheduler": (["scheduler._target_=transformers.AutoModel.from_pretrained"], "does not exist"),
    "what an allowed module imports": (["scheduler._target_=torch.optim.lr_scheduler.warnings"], "does not exist"),
    "callback of Lightning's": (["trainer.callbacks=[{_target_:evil.call}]"], "evil.call is not allowed"),
    "module": (["model.checkpoint=null", "model.weights=w.pth", "model.module={_target_:evil.Net}"], "evil.Net is not allowed"),
    "module in a configuration": (
        ["model.checkpoint=null", "model.weights=w.pth", "model.config={model_type:finespun_module,target:evil.Net}"],
        "target: evil.Net is not allowed",
    ),
    "all allowed": (["runtime.allow_targets=['']"], "allow_targets.0: String should match"),
    "all allowed by a dot": (["runtime.allow_targets=[.]"], "allow_targets.0: String should match"),
}  # fmt: skip


def refusal_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What was said when a command line was refused, with exit code 2."""
    with pytest.raises((ConfigError, SystemExit)) as caught:
        exploring.explore(arguments)
    code = caught.value.exit_code if isinstance(caught.value, ConfigError) else caught.value.code
    assert code == 2
    return str(caught.value) + capsys.readouterr().err


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_a_command_line_runs_no_code_that_is_not_listed(
    artifacts: Artifacts, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = COMMAND_LINES[name]
    assert message in refusal_of(arguments, capsys)
    assert not (artifacts.project / "PWNED").exists()
    assert "evil" not in sys.modules


def into_config(**hydra: object) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        path = project / "conf" / "config.yaml"
        plain = yaml.safe_load(path.read_text())
        plain["hydra"] |= hydra
        path.write_text(yaml.safe_dump(plain, sort_keys=False))

    return change


def experiment(text: str) -> Callable[[Path], None]:
    return lambda project: (project / "conf" / "experiment" / "digits.yaml").write_text(text) and None


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "callback": (into_config(callbacks={"x": {"_target_": "evil.call"}}), "hydra.callbacks.x._target_: evil.call"),
    "logging": (
        into_config(job_logging={"handlers": {"x": {"()": "evil.call"}}, "root": {"handlers": ["x"]}}),
        "hydra.job_logging.handlers.x.(): evil.call is not allowed",
    ),
    "search path": (into_config(searchpath=["pkg://evil"]), ELSEWHERE),
    "experiment's logging": (
        experiment("# @package _global_\nhydra: {job_logging: {formatters: {simple: {'()': evil.call}}}}\n"),
        "hydra.job_logging.formatters.simple.(): evil.call",
    ),
    "experiment's package": (experiment("# @package hydra.callbacks\nx: {_target_: evil.call}\n"), "hydra.callbacks.x._"),
    "made by a resolver": (
        experiment("# @package hydra.callbacks\nx: \"${oc.create:'{_target_: evil.call}'}\"\n"),
        "hydra.callbacks.x._target_: evil.call is not allowed",
    ),
    "settings elsewhere": (experiment("defaults:\n  - ../../elsewhere/x\n"), "elsewhere/x"),
}  # fmt: skip


@pytest.mark.parametrize("multirun", [False, True], ids=["run", "multirun"])
@pytest.mark.parametrize("name", FILES)
def test_files_of_settings_run_no_code_that_is_not_listed(
    artifacts: Artifacts, name: str, multirun: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = FILES[name]
    change(artifacts.project)
    arguments = ["-m", "experiment=digits", "seed=1,2"] if multirun else ["experiment=digits"]
    assert message in refusal_of(arguments, capsys)
    nothing_ran(artifacts)


@pytest.mark.parametrize("name", FILES)
def test_configure_refuses_them_too(artifacts: Artifacts, name: str) -> None:
    change, message = FILES[name]
    change(artifacts.project)
    artifacts.params.write_text(artifacts.params.read_text().replace("experiment: none", "experiment: digits"))
    with pytest.raises(ConfigError) as caught:
        compose(artifacts)
    assert message in str(caught.value)
    nothing_ran(artifacts)


def test_a_trial_of_a_sweep_is_checked_as_the_sweep_is(artifacts: Artifacts, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra composes each trial anew, and would set up its logging before the trial begins."""
    FILES["experiment's logging"][0](artifacts.project)
    change = into_config(sweeper={"params": {"experiment": "digits"}})
    change(artifacts.project)
    artifacts.params.write_text(artifacts.params.read_text().replace("experiment: none\n", ""))
    assert "hydra.job_logging.formatters.simple.()" in refusal_of(["-m", "hydra.callbacks={}", "seed=1,2"], capsys)
    assert not (artifacts.project / "PWNED").exists()


def test_following_the_advice_allows_a_class_of_ones_own(artifacts: Artifacts) -> None:
    (artifacts.project / "evil.py").unlink()
    (artifacts.project / "own_classes.py").write_text(
        "from hydra.experimental.callback import Callback\n"
        "from torch.optim import SGD\n"
        "class Rates(SGD):\n    def __init__(self, params, lr):\n        super().__init__(params, lr=lr)\n"
        "class Told(Callback): ...\n"
    )
    optimizer = artifacts.conf / "optimizer" / "adamw.yaml"
    optimizer.write_text("_target_: own_classes.Rates\nlr: 0.1\n")
    into_config(callbacks={"told": {"_target_": "own_classes.Told"}})(artifacts.project)
    with pytest.raises(ConfigError, match=r"add own_classes.Told to runtime.allow_targets"):
        compose(artifacts)
    runtime = artifacts.conf / "runtime" / "default.yaml"
    text = runtime.read_text()
    runtime.write_text(text.replace("allow_targets: []", "allow_targets: [own_classes.Told]"))
    with pytest.raises(ConfigError, match=r"add own_classes.Rates to runtime.allow_targets"):
        compose(artifacts)
    runtime.write_text(text.replace("allow_targets: []", "allow_targets: [own_classes.]"))
    config, composed = compose(artifacts)
    write(config, composed, artifacts.config)
    read = read_for_stage(artifacts, "finetune")
    assert load("optimizer", read.optimizer.target, also=read.runtime.allow_targets).__name__ == "Rates"
    with pytest.raises(ConfigError, match=r"own_classes.SGD is not allowed; it is torch.optim.sgd.SGD"):
        load("optimizer", "own_classes.SGD", also=read.runtime.allow_targets)
    with pytest.raises(ConfigError, match=r"own_classes2.Rates is not allowed"):
        load("optimizer", "own_classes2.Rates", also=["own_classes"])


@pytest.mark.parametrize("option", [["hydra.verbose=true"], ["++hydra.job.env_set.OMP_NUM_THREADS='1'"], ["-m", "seed=1"], []])
def test_what_is_shipped_and_harmless_goes_through(
    artifacts: Artifacts, option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    exploring.explore([*option, "--cfg", "hydra"] if "-m" not in option else ["--cfg", "hydra", "seed=1"])
    assert "hydra_plugins.finespun_sweeps.FinespunSweeper" in capsys.readouterr().out
