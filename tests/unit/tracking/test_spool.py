"""No metric is lost, whatever the server does, and training never waits for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from finespun.tracking import spool as spooling
from finespun.tracking.spool import BATCH, Point, Spool, send_leftovers


class Server:
    """Takes metrics while it is up; `failures` are the attempts that came to nothing."""

    def __init__(self, *, up: bool = True) -> None:
        self.up, self.points, self.requests, self.failures = up, dict[str, list[Point]](), list[int](), 0
        self.ended: dict[str, str] = {}

    def send(self, run_id: str, points: list[Point]) -> None:
        if not self.up:
            self.failures += 1
            raise ConnectionError
        self.requests.append(len(points))
        self.points.setdefault(run_id, []).extend(points)

    def spool(self, folder: Path) -> Spool:
        return Spool(folder, "run", self.send, (OSError,))

    def take_leftovers(self, folder: Path) -> None:
        send_leftovers(folder, self.send, self.ended.__setitem__, (OSError,))

    def values(self) -> list[tuple[str, float, int]]:
        return [(name, value, step) for name, value, step, _ in self.points.get("run", [])]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "PAUSE_SECONDS", 0.01)


def wait_for(server: Server, failures: int) -> None:
    deadline = time.monotonic() + 10
    while server.failures < failures:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_everything_is_sent_once_and_in_order(tmp_path: Path) -> None:
    server = Server()
    spool = server.spool(tmp_path)
    before = int(time.time() * 1000)
    for step in range(20):
        spool.log({"loss": 1 / (step + 1), "rate": 0.5}, step)
    assert spool.close(5, "FINISHED") == 0
    assert server.values() == [each for step in range(20) for each in (("loss", 1 / (step + 1), step), ("rate", 0.5, step))]
    assert all(before <= moment <= int(time.time() * 1000) for *_, moment in server.points["run"])
    assert not list(tmp_path.iterdir())


def test_nothing_is_lost_when_the_server_fails_and_comes_back(tmp_path: Path) -> None:
    server = Server()
    spool = server.spool(tmp_path)
    for step in range(30):
        server.up = step // 10 != 1
        spool.log({"loss": float(step)}, step)
        if step == 15:
            wait_for(server, 2)
    assert spool.close(5, "FINISHED") == 0
    assert server.failures >= 2
    assert server.values() == [("loss", float(step), step) for step in range(30)]


def test_what_could_not_be_sent_stays_on_disk_with_the_runs_end_and_is_sent_later(tmp_path: Path) -> None:
    server = Server(up=False)
    spool = server.spool(tmp_path)
    for step in range(5):
        spool.log({"loss": float(step)}, step)
    assert spool.close(5, "FAILED") == 5
    server.take_leftovers(tmp_path)
    assert spool.path.exists(), "the server is still down"
    server.up = True
    server.take_leftovers(tmp_path)
    assert server.values() == [("loss", float(step), step) for step in range(5)]
    assert server.ended == {"run": "FAILED"}
    assert not list(tmp_path.iterdir())


def test_what_is_logged_is_on_disk_at_once_so_that_a_kill_loses_nothing(tmp_path: Path) -> None:
    dead, server = Server(up=False), Server()
    killed = dead.spool(tmp_path)
    killed.log({"loss": 0.5, "norm": 2.0}, 7)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.1-0.jsonl").write_bytes(killed.path.read_bytes() + b'["los')  # a kill in mid-write
    killed.close(5, "FINISHED")
    server.take_leftovers(copy)
    assert server.values() == [("loss", 0.5, 7), ("norm", 2.0, 7)]
    assert server.ended == {}, "nobody lived to say how it ended"


def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    server = Server(up=False)
    first = server.spool(tmp_path)
    first.log({"loss": 1.0}, 1)
    second = server.spool(tmp_path)
    server.up = True
    server.take_leftovers(tmp_path)
    assert first.path.exists()
    assert second.path.exists()
    assert (first.close(5, "FINISHED"), second.close(5, "FINISHED")) == (0, 0)
    assert server.values() == [("loss", 1.0, 1)]


def test_logging_neither_raises_nor_waits_while_the_server_hangs(tmp_path: Path) -> None:
    class Hangs(Server):
        def send(self, run_id: str, points: list[Point]) -> None:
            while not self.up:
                time.sleep(0.005)
            super().send(run_id, points)

    server = Hangs(up=False)
    spool = server.spool(tmp_path)
    spool.log({"loss": 0.0}, 0)
    time.sleep(0.05)  # the thread hangs now
    begun = time.monotonic()
    for step in range(1, 200):
        spool.log({"loss": float(step)}, step)
    assert spool.close(0.05, "FINISHED") >= 200
    assert time.monotonic() - begun < 2
    assert len(spool.path.read_text().splitlines()) == 200 + 1
    server.up = True
    spool.thread.join(5)


def test_values_that_are_no_numbers_survive_the_disk(tmp_path: Path) -> None:
    server = Server(up=False)
    spool = server.spool(tmp_path)
    spool.log({"a": float("inf"), "b": float("nan")}, 1)
    assert spool.close(5, "FINISHED") == 2
    server.up = True
    server.take_leftovers(tmp_path)
    assert str(server.values()) == "[('a', inf, 1), ('b', nan, 1)]"


def test_a_request_holds_no_more_than_the_server_takes(tmp_path: Path) -> None:
    server = Server(up=False)
    spool = server.spool(tmp_path)
    spool.log({f"m{number}": 0.0 for number in range(2 * BATCH + 1)}, 1)
    wait_for(server, 1)
    server.up = True
    assert spool.close(5, "FINISHED") == 0
    assert server.requests == [BATCH, BATCH, 1]
