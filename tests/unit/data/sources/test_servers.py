"""Rows of real servers: an S3 server of moto's, a PostgreSQL of this machine's."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finespun.config.sections import DataConfig
from finespun.data.sources.source import Source
from finespun.errors import MachineError
from finespun.masking import masked

pytestmark = pytest.mark.slow
ROWS = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(5_000)]
COLUMNS = {"text": "text", "label": "label"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server, in the environment of whoever reads."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_files_on_s3(s3: str, tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("s3")
    system.mkdir("bucket")
    for part in range(2):
        text = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS[part * 2500 : part * 2500 + 2500])
        system.pipe(f"bucket/mail/part-{part}.csv", text.encode())
    data = DataConfig.model_validate({"path": "s3://bucket/mail/*.csv", "columns": COLUMNS})
    found = Source(data, tmp_path)
    lines = [*found()]
    assert [line.row for line in lines] == ROWS
    assert found.place(lines[2500].number) == ("s3://bucket/mail/part-1.csv", 2)
    before = found.digest()
    system.pipe("bucket/mail/part-1.csv", b"text,label\nother,a\n")
    system.invalidate_cache()
    assert Source(data, tmp_path).digest() != before


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL server without its password, hunter2."""
    pytest.importorskip("psycopg")
    program = shutil.which("initdb") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if program is None:
        pytest.skip("there is no PostgreSQL on this machine")
    place, user = Path(program).resolve().parent, []
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others whenever another pytest begins
    if os.geteuid() == 0:  # PostgreSQL refuses to be root
        if shutil.which("runuser") is None or not _has_user("nobody"):
            pytest.skip("PostgreSQL does not run as root, and there is nobody else")
        user = ["runuser", "-u", "nobody", "--"]
        shutil.chown(folder, "nobody")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = folder / "secret"
    secret.write_text("hunter2")
    shutil.chown(secret, "nobody" if user else getpass.getuser())
    run = [*user, str(place / "initdb"), "-D", str(folder / "db"), "-U", "reader", "-A", "scram-sha-256", f"--pwfile={secret}"]
    subprocess.run(run, check=True, capture_output=True, cwd="/")
    server = subprocess.Popen(
        [*user, str(place / "postgres"), "-D", str(folder / "db"), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    yield f"postgresql+psycopg://reader@127.0.0.1:{port}/postgres"
    server.terminate()
    server.wait(timeout=30)
    shutil.rmtree(folder)


def _has_user(name: str) -> bool:
    return subprocess.run(["id", name], capture_output=True, check=False).returncode == 0


def _filled(address: str) -> None:
    import sqlalchemy as sql

    engine = sql.create_engine(address.replace("reader@", "reader:hunter2@"))
    for _ in range(600):  # a minute
        try:
            with engine.begin() as connection:
                connection.execute(sql.text("CREATE TABLE mail (id INTEGER, text TEXT, label TEXT)"))
                connection.execute(
                    sql.text("INSERT INTO mail VALUES (:id, :text, :label)"), [{"id": n, **row} for n, row in enumerate(ROWS)]
                )
            break
        except sql.exc.OperationalError:
            time.sleep(0.1)
    engine.dispose()


def test_a_query_of_postgresql(postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(postgresql)
    data = DataConfig.model_validate(
        {"path": postgresql, "sql": "SELECT text, label FROM mail ORDER BY id", "password": "SHOP", "columns": COLUMNS}
    )
    monkeypatch.setenv("SHOP", "hunter2")
    assert [line.row for line in Source(data, tmp_path)()] == ROWS
    assert "hunter2" not in masked("the password is hunter2"), "it is hidden from then on"
    monkeypatch.setenv("SHOP", "wrong")
    with pytest.raises(MachineError, match=r"cannot be reached .*look at the address, the server and the password"):
        [*Source(data, tmp_path)()]
