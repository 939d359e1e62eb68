"""`finespun doctor`: each fault is named, `--fix` or the advice mends it, and DVC and finespun work again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from finespun.artifacts import Artifacts
from finespun.cli.main import main
from finespun.doctor import examination, machine, project
from finespun.doctor.finding import Finding
from finespun.sweeps.processes import workers
from finespun.tracking.outbox.journal import Journal
from finespun.training.lightning import devices
from helpers import ROOT
from small_run import small_config

PIPELINE = {"stages": {"copy": {"cmd": "cp params.yaml copied.yaml", "deps": ["params.yaml"], "outs": ["copied.yaml"]}}}
NOBODY = 2**22 + 1  # no process has such a number


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True, capture_output=True
    )


def dvc(*arguments: str) -> int:
    from dvc.cli import main as run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(run([*arguments]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose one stage has run, committed."""
    folder = tmp_path_factory.mktemp("doctor") / "project"
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (folder / ".gitignore").write_text(".finespun/\nmlruns/\n")
    git(folder, "init", "-q", "-b", "main")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert dvc("init") == 0
        assert dvc("repro") == 0
    finally:
        os.chdir(before)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """A copy of it that a test may break."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return Artifacts(project=folder, out=folder)


def wrong(artifacts: Artifacts, state: str = "wrong") -> list[Finding]:
    return [finding for finding in examination.examine(artifacts) if finding.state == state]


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], catch_exceptions=False)


def test_a_project_in_which_all_is_well(here: Artifacts) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    assert "dvc.lock" in result.output
    assert wrong(here) == []
    assert wrong(here, "note") == []


RWLOCKS = ["", "{", "[]", "null", "\0\0\0", '{"write": {"a": 1}}', '{"write": {"a": {"pid": "x", "cmd": "y"}}}', '{"read": 3}']


QUICK = {
    ("", ".dvc/tmp/rwlock"),
    (RWLOCKS[5], ".dvc/tmp/rwlock"),
    ("", ".dvc/tmp/exps/rwlock"),
    ("empty", "--fix"),
    ("conflict", "--fix"),
    ("torn", "git"),
    ("no command", "rm"),
}


def cases(first: Iterable[str], second: Iterable[str]) -> list[Any]:
    """All pairs; those that are not among the quick ones are slow."""
    return [pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow) for pair in product(first, second)]


@pytest.mark.parametrize(("content", "name"), cases(RWLOCKS, [".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"]))
def test_locks_of_dvc_that_it_cannot_read(here: Artifacts, content: str, name: str) -> None:
    path = here.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    here.params.write_text(here.params.read_text() + "# changed\n")
    if name == ".dvc/tmp/rwlock":
        assert dvc("repro") != 0, "DVC fails by itself"
    [finding] = wrong(here)
    assert (finding.check, finding.remedy) == (name, f"remove it: `rm {name}`")
    result = doctor()
    assert result.exit_code == 5
    assert f"checks found something wrong ({name}); `finespun doctor --fix` mends 1 of them" in result.output
    assert doctor("--fix").exit_code == 0
    assert not path.exists()
    assert dvc("repro") == 0


@pytest.mark.parametrize("mode", ["write", "read"])
@pytest.mark.parametrize("whose", ["nobody's", "a later process's"])
def test_locks_of_a_dvc_that_has_ended(here: Artifacts, mode: str, whose: str) -> None:
    pid = NOBODY if whose == "nobody's" else os.getppid()
    entry = {"pid": pid, "cmd": "dvc repro"}
    content = {mode: {str(here.project / "copied.yaml"): entry if mode == "write" else [entry]}}
    path = here.dvc / "tmp" / "rwlock"
    path.write_text(json.dumps(content))
    os.utime(path, (0, psutil.Process(os.getppid()).create_time() - 3600))
    here.params.write_text(here.params.read_text() + "# changed\n")
    if whose != "nobody's":
        assert dvc("repro") != 0, "DVC takes a process that came later for the one that held the lock"
        os.utime(path, (0, psutil.Process(os.getppid()).create_time() - 3600))
    [finding] = wrong(here)
    assert finding.check == ".dvc/tmp/rwlock"
    assert f"process {pid}, which has ended" in finding.found
    result = doctor("--fix")
    assert result.exit_code == 0, result.output
    assert "their locks are released" in result.output
    assert dvc("repro") == 0


def test_locks_of_a_dvc_that_is_at_work_are_left(here: Artifacts) -> None:
    path = here.dvc / "tmp" / "rwlock"
    ours = {str(here.project / "a"): {"pid": os.getpid(), "cmd": "dvc repro"}}
    others = {str(here.project / "b"): [{"pid": NOBODY, "cmd": "dvc repro"}, {"pid": os.getpid(), "cmd": "dvc repro"}]}
    path.write_text(json.dumps({"write": ours, "read": {}}))
    assert wrong(here) == []
    path.write_text(json.dumps({"write": ours, "read": others}))
    assert doctor("--fix").exit_code == 0
    assert json.loads(path.read_text()) == {
        "write": ours,
        "read": {str(here.project / "b"): [{"pid": os.getpid(), "cmd": "dvc repro"}]},
    }


LOCK_FILES = {
    "empty": "", "zeros": "\0" * 50, "torn": "schema: '2.0'\nstages:\n  copy:\n    cmd: cp par\n    deps: [", "a list": "- a\n",
    "conflict": "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> other\n", "no command": "schema: '2.0'\nstages:\n  copy: {deps: []}\n",
    "no schema": "stages: {}\n", "another schema": "schema: '9.0'\nstages: {}\n", "text": "hello",
}  # fmt: skip


@pytest.mark.parametrize(("name", "by"), cases(LOCK_FILES, ["--fix", "git", "rm"]))
def test_a_lock_file_that_dvc_cannot_use(here: Artifacts, name: str, by: str, capfd: pytest.CaptureFixture[str]) -> None:
    here.dvc_lock.write_text(LOCK_FILES[name])
    [finding] = wrong(here)
    assert finding.check == "dvc.lock"
    assert finding.found
    assert not finding.found.endswith((";", " ", "or"))
    assert doctor().exit_code == 5
    if by == "--fix":
        result = doctor("--fix")
        assert result.exit_code == 0, result.output
        assert "the committed one is taken" in result.output
        assert [path.read_text() for path in here.broken.iterdir()] == [LOCK_FILES[name]]
    elif by == "git":
        assert "`git checkout HEAD -- dvc.lock`" in finding.remedy
        git(here.project, "checkout", "HEAD", "--", "dvc.lock")
    else:
        here.dvc_lock.unlink()
    assert wrong(here) == []
    assert dvc("repro") == 0
    capfd.readouterr()
    assert dvc("status") == 0
    assert "up to date" in capfd.readouterr().out


def test_a_lock_file_of_which_no_commit_knows_is_put_aside(here: Artifacts) -> None:
    git(here.project, "rm", "-q", "--cached", "dvc.lock")
    git(here.project, "commit", "-qm", "none")
    here.dvc_lock.write_text("")
    assert doctor("--fix").exit_code == 0
    assert not here.dvc_lock.exists()
    assert dvc("repro") == 0
    assert here.dvc_lock.exists()


def test_a_project_without_dvc(here: Artifacts) -> None:
    shutil.rmtree(here.dvc)
    [finding] = wrong(here)
    assert (finding.check, "`dvc init`" in finding.remedy) == (".dvc", True)
    assert dvc("init") == 0
    assert wrong(here) == []


def test_conflict_marks_in_dvcs_settings(here: Artifacts) -> None:
    (here.dvc / "config").write_text("<<<<<<< HEAD\n[core]\n=======\n>>>>>>> other\n")
    [finding] = wrong(here)
    assert (finding.check, finding.found) == (".dvc/config", "Git's conflict marks")
    git(here.project, "checkout", "HEAD", "--", ".dvc/config")
    assert wrong(here) == []


@pytest.mark.parametrize("name", ["models", "models/finetuned", "reports", "mlruns", ".finespun", "build", "data/prepared"])
@pytest.mark.parametrize("what", ["file", "link"])
def test_a_folder_that_cannot_be_written_to(here: Artifacts, name: str, what: str) -> None:
    path = here.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "file":
        path.write_text("x")
    else:
        path.symlink_to(here.project.parent / "gone")
    found = [finding for finding in wrong(here) if finding.check == "folders"]
    assert [str(path) in finding.found for finding in found] == [True]
    if what == "file":
        assert found[0].remedy == f"move the file away: `mv {path} {path}.old`"
        path.rename(f"{path}.old")
    else:
        assert "which is not there" in found[0].found
        assert f"`mkdir -p {here.project.parent / 'gone'}`" in found[0].remedy
        (here.project.parent / "gone").mkdir()
    assert wrong(here) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(here: Artifacts) -> None:
    here.mlruns.mkdir()
    here.mlruns.chmod(0o500)
    [finding] = wrong(here)
    assert f"`chmod u+rwx {here.mlruns}`" in finding.remedy
    here.mlruns.chmod(0o700)
    assert wrong(here) == []


def test_a_disk_on_which_a_run_does_not_fit(here: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    here.finetuned.mkdir(parents=True)
    with (here.finetuned / "model.safetensors").open("wb") as file:
        file.truncate(10**9)  # of zeros that take no space
    monkeypatch.setattr(project.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    [finding] = wrong(here)
    assert finding.found == f"5,000 MB are free in {here.project}; a run needs about 8,100 MB"
    monkeypatch.setattr(project.shutil, "disk_usage", lambda _: SimpleNamespace(free=9 * 10**9))
    assert wrong(here) == []


@pytest.mark.parametrize(("there", "said"), [("1.0", "torch 1.0 (needed: >=2.10)"), (None, "torch none (needed: >=2.10)")])
def test_packages_that_are_too_old_or_missing(
    here: Artifacts, monkeypatch: pytest.MonkeyPatch, there: str | None, said: str
) -> None:
    true = project.version

    def version(name: str) -> str:
        if name == "torch":
            if there is None:
                raise project.PackageNotFoundError(name)
            return there
        return true(name)

    monkeypatch.setattr(project, "version", version)
    [finding] = wrong(here)
    assert (finding.check, finding.found) == ("versions", said)


@pytest.mark.parametrize(
    ("package", "needs", "said"),
    [
        ("torchvision", ["numpy", "torch==2.1.0"], "torchvision 9.9 was built for torch==2.1.0, and torch is "),
        ("hydra-optuna-sweeper", ["optuna<3"], "hydra-optuna-sweeper 9.9 is another `hydra/sweeper=optuna`"),
    ],
)
def test_packages_that_break_others(
    here: Artifacts, monkeypatch: pytest.MonkeyPatch, package: str, needs: list[str], said: str
) -> None:
    requires, version = machine.requires, machine.version
    monkeypatch.setattr(machine, "requires", lambda name: needs if name == package else requires(name))
    monkeypatch.setattr(machine, "version", lambda name: "9.9" if name == package else version(name))
    [finding] = wrong(here)
    assert finding.check == "combinations"
    assert finding.found.startswith(said)
    assert finding.remedy.endswith(f"`pip uninstall {package}`")


def setting(here: Artifacts, file: str, **values: object) -> None:
    path = here.conf / file
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def test_devices_that_are_not_there_and_precisions_that_are_slow(here: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in devices.NATIVE_BF16:
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    found = {finding.check: finding for finding in examination.examine(here)}
    assert "1 x cpu" in found["devices"].found
    assert "precision 32-true (no native bf16 on this cpu)" in found["devices"].found
    setting(here, "trainer/default.yaml", precision="bf16-mixed")
    [note] = wrong(here, "note")
    assert note.found == "trainer.precision: bf16-mixed, and no native bf16 on this cpu: many times slower than 32-true"
    assert note.remedy == "set trainer.precision: auto"
    setting(here, "trainer/default.yaml", precision="auto")
    monkeypatch.setattr(workers, "gpus_here", lambda _: ["0"])
    monkeypatch.setattr(machine.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    [note] = wrong(here, "note")
    assert note.found.startswith(f"1 x GPU there, and torch {torch.__version__} cannot use them: 1 x cpu")
    assert "requirements-cuda.lock" in note.remedy
    setting(here, "runtime/default.yaml", accelerator="gpu")
    [finding] = wrong(here)
    assert (finding.check, "gpu asked for, none is there" in finding.found) == ("devices", True)


def test_a_torch_that_cannot_be_imported(here: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finespun.training.lightning.devices", None)
    [finding] = wrong(here)
    assert finding.check == "devices"
    assert finding.found.startswith("torch cannot be imported: ")


def test_dvcs_cache_and_remote(here: Artifacts) -> None:
    def found() -> dict[str, Finding]:
        return {finding.check: finding for finding in machine.check_storage(here)}

    def bad(state: str = "wrong") -> list[Finding]:
        return [finding for finding in found().values() if finding.state == state]

    assert found()["DVC's cache"].found == str(here.dvc / "cache")
    assert found()["DVC's remote"].found == "none; `dvc push` needs one: `dvc remote add --default NAME ADDRESS`"
    gone, store = here.project.parent / "gone", here.project.parent / "store"
    (here.dvc / "config").write_text(f"[cache]\n    dir = {gone}\n")
    [finding] = bad()
    assert (finding.check, f"`mkdir -p {gone}`" in finding.remedy) == ("DVC's cache", True)
    gone.mkdir()
    assert bad() == []
    config = "[core]\n    remote = main\n"
    (here.dvc / "config").write_text(config)
    [finding] = bad()
    assert finding.found == "core.remote names main, which is not one of (none)"
    for url in ("gs://bucket/results", "ssh://user:word@host/results"):
        (here.dvc / "config").write_text(f"{config}['remote \"main\"']\n    url = {url}\n")
        [finding] = bad()
        plugin = f"dvc-{url.partition(':')[0]}"
        assert finding.remedy == f"`pip install {plugin}`"
        assert "word" not in finding.found
    (here.dvc / "config").write_text(f"{config}['remote \"main\"']\n    url = {store}\n")
    [note] = bad("note")
    assert note.found == f"main: {store} is not there"
    store.mkdir()
    assert found()["DVC's remote"].found == f"main: {store}"


def test_an_mlflow_server_that_is_away(here: Artifacts) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        setting(here, "runtime/default.yaml", tracking_uri=address)
        assert f"{address} answers" in doctor().output, "also one that asks for a password"
        server.shutdown()
    [note] = wrong(here, "note")
    assert note.found.startswith(f"{address} does not answer (")
    assert "`finespun sync`" in note.remedy


def test_a_configuration_with_mistakes(here: Artifacts) -> None:
    here.params.write_text(here.params.read_text().replace("model: ", "model: x"))
    [finding] = wrong(here)
    assert finding.check == "configuration"
    assert "model" in finding.found
    git(here.project, "checkout", "--", "params.yaml")
    assert wrong(here) == []


def checkpoints(here: Artifacts, name: str = "ab12") -> Path:
    folder = here.state / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "state-000000010.ckpt").write_bytes(b"x" * 10**6)
    (folder / "lock").write_text(str(NOBODY))
    return folder


def test_runs_that_were_killed_are_noted_and_those_of_long_ago_removed(here: Artifacts) -> None:
    young, old = checkpoints(here, "young"), checkpoints(here, "old")
    for path in (*old.iterdir(), old):
        os.utime(path, (0, time.time() - 31 * 24 * 3600))
    notes = [finding.found for finding in wrong(here, "note")]
    assert notes == [
        "1 run ended before the end (1.0 MB); the same command takes it up again",
        "1 run ended before the end more than 30 days ago (1.0 MB)",
    ]
    result = doctor("--fix")
    assert result.exit_code == 0, result.output
    assert (young.is_dir(), old.exists()) == (True, False)


HOLD = "import fcntl, sys, time; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holder(here: Artifacts) -> Iterator[subprocess.Popen[str]]:
    folder = checkpoints(here)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder / "lock")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        (folder / "lock").write_text(str(process.pid))
        yield process
        process.kill()


def test_a_run_that_is_stopped_holds_its_lock(here: Artifacts, holder: subprocess.Popen[str]) -> None:
    assert wrong(here) == []
    holder.send_signal(signal.SIGSTOP)
    while psutil.Process(holder.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    [finding] = wrong(here)
    assert finding.remedy == f"let it go on: `kill -CONT {holder.pid}`, or end it"
    assert doctor("--fix").exit_code == 5
    os.kill(holder.pid, signal.SIGCONT)
    while psutil.Process(holder.pid).status() == psutil.STATUS_STOPPED:
        time.sleep(0.01)
    assert wrong(here) == []


def test_folders_that_were_being_filled_are_removed_and_those_that_are_left(here: Artifacts) -> None:
    names = (f"prepared/ab.{NOBODY}", f"prepared/ab.{os.getpid()}", "prepared/ab")
    for name in names:
        (here.state / name).mkdir(parents=True)
    [note] = wrong(here, "note")
    assert note.check == "leftovers"
    assert doctor("--fix").exit_code == 0
    assert [(here.state / name).exists() for name in names] == [False, True, True]


def test_what_mlflow_is_owed_is_noted(here: Artifacts) -> None:
    journal = Journal.begin(here.state / "outbox" / "run")
    journal.add("tags", {"a": "b"})
    journal.close()
    [note] = wrong(here, "note")
    assert (note.found, note.remedy) == ("1 run has results that MLflow has not received", "send it: `finespun sync`")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"not a database, and longer than a header is" * 9, b"\0" * 5000])
def test_a_database_that_is_damaged(here: Artifacts, content: bytes) -> None:
    from finespun.tracking.client import Tracker

    here.mlruns.mkdir()
    (here.mlruns / "mlflow.db").write_bytes(content)
    [finding] = wrong(here)
    assert finding.check == "mlruns"
    assert f"`mv {here.mlruns} {here.mlruns}.old`" in finding.remedy
    here.mlruns.rename(f"{here.mlruns}.old")
    with Tracker(small_config().runtime, here).start("one", tags={}, params={}) as run:
        run.log({"a": 1.0}, 1)
    assert wrong(here) == []


@pytest.mark.slow
def test_a_project_that_was_moved(here: Artifacts) -> None:
    from finespun.tracking.client import Tracker

    runtime = small_config().runtime
    with Tracker(runtime, here).start("one", tags={}, params={}):
        pass
    folder = here.project.parent / "moved"
    here.project.rename(folder)
    os.chdir(folder)
    moved = Artifacts(project=folder, out=folder)
    assert wrong(moved, "note") == wrong(moved) == [], "its runs are brought along by the next command"
    with Tracker(runtime, moved).start("two", tags={}, params={}) as run:
        place = run.tracker.client.get_run(run.id).info.artifact_uri
    assert place.startswith((folder / "mlruns" / "artifacts").as_uri())
