"""`finespun ui` in a real browser: runs with their columns, a run with its description, the report opened inside MLflow."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from helpers import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs Chromium and its driver"),
]


@pytest.fixture(scope="module")
def address(finished: Project) -> Iterator[str]:
    """Where `finespun ui` of a project that has run says that it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "finespun", "ui", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=finished.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:  # fmt: skip
        try:
            yield next(re.findall(r"http://\S+", line)[0] for line in server.stdout or () if "http://" in line)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=2600,1400"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def text_of(browser: Any, address: str, *wanted: str, seconds: float = 120) -> str:
    """Opens a page again and again until it shows what is wanted."""
    from selenium.common.exceptions import WebDriverException

    until, found = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        try:
            browser.get("about:blank")
            browser.get(address)
            for _ in range(30):
                time.sleep(0.5)
                found = browser.find_element("tag name", "body").text
                if all(each in found for each in wanted):
                    return found
        except WebDriverException:
            time.sleep(1)  # MLflow is starting
    raise AssertionError(f"{[each for each in wanted if each not in found]} are not in:\n{found}")


def test_the_table_of_runs_has_the_columns_that_matter(browser: Any, address: str) -> None:
    columns = ("movie_reviews", "dvc repro", "test/accuracy", "model")
    shown = text_of(browser, address, *columns)
    assert all(each in shown for each in columns)


def test_nothing_runs_that_nobody_asked_for(browser: Any, address: str) -> None:
    text_of(browser, address, "movie_reviews")
    port = urlsplit(address).port
    [served] = [each for each in psutil.Process().children() if str(port) in each.cmdline()]
    commands = [" ".join(each.cmdline()) for each in served.children(recursive=True)]
    assert any("uvicorn" in command for command in commands)
    assert not [command for command in commands if "huey" in command]  # MLflow's job queue: a dozen processes, 2 GB


def test_a_runs_page_has_its_description_source_data_and_model(browser: Any, address: str) -> None:
    text_of(browser, address, "movie_reviews")
    run = browser.find_element("css selector", "a[href*='/runs/']").get_attribute("href")
    text_of(browser, run, "Accuracy 0.", "dvc repro", "main", "movie_reviews-train", "model", "val/accuracy")
    text_of(browser, f"{run}/model-metrics", "accuracy")


def test_the_report_opens_inside_mlflow(browser: Any, address: str) -> None:
    text_of(browser, address, "movie_reviews")
    run = browser.find_element("css selector", "a[href*='/runs/']").get_attribute("href")
    text_of(browser, f"{run}/artifacts/report/index.html", "index.html")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for frame in browser.find_elements("tag name", "iframe"):
            browser.switch_to.frame(frame)
            found = browser.find_elements("id", "verdict")
            said = found[0].text if found else ""
            browser.switch_to.default_content()
            if said:
                assert said.startswith("Accuracy 0.")
                return
        time.sleep(0.5)
    raise AssertionError("no frame shows the report")
