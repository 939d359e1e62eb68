"""Ten thousand runs in MLflow's embedded database, and a report of ten thousand rows: how long one waits for them.

    python benchmarks/browsing.py [--runs 10000] [--rows 10000]

Runs are written into the database directly, with 30 metrics, 40 parameters and 10 tags each; then MLflow's own client looks for
the best, before and after `Tracker.tidy`, which every finished run calls. The report is rendered, and opened in headless
Chromium where there is one. Medians of wall time and of CPU time; the latter say more on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from finespun.artifacts import Artifacts  # noqa: E402
from finespun.report import page  # noqa: E402
from finespun.tracking.client import Tracker  # noqa: E402
from reported import facts, split_facts  # noqa: E402  (it is in the folder that was just added)
from small_run import small_config  # noqa: E402

TIMES = 7


def timed(work: Callable[[], Any]) -> str:
    """Returns the medians of wall and CPU milliseconds."""
    wall, cpu = [], []
    for _ in range(TIMES):
        began, used = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - used))
    return f"{statistics.median(wall):,.0f} ms ({statistics.median(cpu):,.0f} CPU ms)"


def fill(database: Path, experiment: str, runs: int) -> None:
    """Writes runs as MLflow would."""
    ids = [uuid.uuid4().hex for _ in range(runs)]
    named = [(f"{split}/{name}", place) for place, (split, name) in enumerate(
        (split, name) for split in ("train", "val", "test") for name in ("loss", "accuracy", *(f"f1/{n}" for n in range(8)))
    )]  # fmt: skip
    with closing(sqlite3.connect(database)) as connection, connection:

        def insert(table: str, **columns: list[Any]) -> None:
            marks = ", ".join("?" * len(columns))
            sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            connection.executemany(sql, zip(*columns.values(), strict=True))

        insert("runs", run_uuid=ids, name=ids, experiment_id=[experiment] * runs, status=["FINISHED"] * runs,
               lifecycle_stage=["active"] * runs, start_time=[*range(runs)], end_time=[*range(runs)], user_id=["u"] * runs,
               artifact_uri=["file:///x"] * runs, source_type=["LOCAL"] * runs, source_name=[""] * runs,
               entry_point_name=[""] * runs, source_version=[""] * runs)  # fmt: skip
        pairs = [
            (run, name, (number * 7919 + place) % 10007 / 10007) for number, run in enumerate(ids) for name, place in named
        ]
        columns = {"run_uuid": [each[0] for each in pairs], "key": [each[1] for each in pairs],
                   "value": [each[2] for each in pairs], "timestamp": [0] * len(pairs), "step": [1] * len(pairs),
                   "is_nan": [0] * len(pairs)}  # fmt: skip
        insert("latest_metrics", **columns)
        insert("metrics", **columns)
        for table, count in (("params", 40), ("tags", 10)):
            whose = [run for run in ids for _ in range(count)]
            keys = [f"section.key_{number}" for _ in ids for number in range(count)]
            insert(table, run_uuid=whose, key=keys, value=["1"] * len(whose))


def runs_of(count: int) -> None:
    """Prints how long MLflow takes for the best of many runs."""
    with tempfile.TemporaryDirectory() as name:
        tracker = Tracker(small_config().runtime, Artifacts(project=Path(name), out=Path(name)))
        experiment = tracker.experiment_id
        fill(Path(name) / "mlruns" / "mlflow.db", experiment, count)

        def best(most: int) -> None:
            found = tracker.client.search_runs([experiment], order_by=["metrics.`val/accuracy` DESC"], max_results=most)
            assert len(found) == most

        for when in ("before", "after"):
            if when == "after":
                tracker.tidy()
            elif count > 2000:
                print("before tidy: not waited for (quadratic in the runs)")
                continue
            print(
                f"{count:,} runs, {when} tidy: the best {timed(lambda: best(1))}, the first hundred {timed(lambda: best(100))}"
            )


def report_of(rows: int) -> None:
    """Prints how long a report takes to be written and opened."""
    given = facts(split_facts(rows=rows), split_facts("validation", rows=rows))
    whole = page.render(given)
    print(f"{rows:,} rows: rendered in {timed(lambda: page.render(given))}, {len(whole) / 1e6:.1f} MB")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return
    from selenium import webdriver  # noqa: PLC0415  (only where there is a browser)

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index.html"
        path.write_text(whole, encoding="utf-8")
        waits = []
        for _ in range(TIMES):
            driver.get(path.as_uri())
            waits.append(driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
        print(f"opened in Chromium in {statistics.median(waits):,.0f} ms")
    driver.quit()


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=10_000)
    given = parser.parse_args()
    report_of(given.rows)
    runs_of(given.runs)


if __name__ == "__main__":
    main()
