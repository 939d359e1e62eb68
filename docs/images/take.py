"""Takes the screenshots of README.md and docs/: run it in a project that has run, with Chromium and its driver installed."""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECONDS = 90.0  # for MLflow to start, and for a page to be drawn
CLOSE_ASSISTANT = "document.querySelectorAll('button[aria-label*=\"lose\"]').forEach((button) => button.click())"


def main() -> None:
    """Takes all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path.cwd())
    project = parser.parse_args().project.resolve()
    driver = browser()
    try:
        take(driver, (project / "reports" / "index.html").as_uri(), "report.png", "#verdict", size=(1200, 1500))
        runs_of_mlflow(driver, project)
    finally:
        driver.quit()


def browser() -> Any:
    """Opens Chromium without a window."""
    from selenium import webdriver  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))


def runs_of_mlflow(driver: Any, project: Path) -> None:
    """Takes the table of runs and the newest run's page from `finespun ui`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "finespun", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in server.stdout or () if "http://" in line)
        address = re.findall(r"http://\S+", line)[0]
        wait_for(f"http://127.0.0.1:{port}/health")
        take(driver, address, "mlflow_runs.png", "a[href*='/runs/']", size=(1700, 700))
        run = driver.find_element("css selector", "a[href*='/runs/']").get_attribute("href")
        take(driver, run, "mlflow_run.png", "table", size=(1700, 1000))
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str) -> None:
    """Waits until a server answers."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(address).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"{address}: does not answer")


def take(driver: Any, address: str, name: str, shown: str, *, size: tuple[int, int]) -> None:
    """Opens a page, waits until something is shown, and writes the picture."""
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    driver.set_window_size(*size)
    driver.get(address)
    WebDriverWait(driver, SECONDS).until(lambda opened: opened.find_elements("css selector", shown))
    driver.execute_script(CLOSE_ASSISTANT)
    time.sleep(3)  # pages of MLflow go on drawing
    driver.save_screenshot(str(HERE / name))
    print(HERE / name)


if __name__ == "__main__":
    main()
