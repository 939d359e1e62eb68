"""The report in a real browser: nothing that users wrote runs, rows can be found, phones and dark screens can show it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finespun.report import page
from helpers import ROOT
from reported import HOSTILE, facts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs Chromium and its driver"),
]
WIDE, PHONE = (1200, 900), (500, 800)  # Chromium makes no narrower window; the style sheet's phone begins at 640
AXE = (ROOT / "tests" / "data" / "axe.min.js").read_text(encoding="utf-8")  # axe-core 4.14.1, MPL-2.0
RULES = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(page.render(facts()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def opened(browser: Any, address: str, *, size: tuple[int, int] = WIDE, scheme: str = "light") -> Any:
    browser.set_window_size(*size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(address)
    return browser


def test_what_users_wrote_is_shown_and_does_not_run(browser: Any, address: str) -> None:
    driver = opened(browser, address)
    assert driver.title == "reviews · tiny-bert · full – report"  # noqa: RUF001
    assert HOSTILE in [cell.text for cell in driver.find_elements("css selector", "#rows td.text")]
    assert all(each.get_attribute("src").startswith("data:") for each in driver.find_elements("css selector", "main img"))
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_mistakes_are_searched_and_filtered(browser: Any, address: str) -> None:
    driver = opened(browser, address)
    rows = driver.find_elements("css selector", "#rows tbody tr")
    driver.find_element("id", "search").send_keys("SCRIPT title")
    assert [row.is_displayed() for row in rows].count(True) == 1
    assert driver.find_element("id", "count").text == "1 shown"
    driver.find_element("id", "search").clear()
    driver.find_element("id", "search").send_keys(" ")
    driver.find_element("id", "predicted").send_keys("positive")
    shown = [row for row in rows if row.is_displayed()]
    assert 0 < len(shown) < len(rows)
    assert {row.get_attribute("data-predicted") for row in shown} == {"positive"}


def test_the_keyboard_reaches_everything(browser: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = opened(browser, address)
    reached = []
    for _ in range(45):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        active = driver.switch_to.active_element
        reached.append(active.get_attribute("id") or active.get_attribute("class") or active.text or active.tag_name)
    assert reached[0] == "skip"
    assert {"search", "actual", "predicted"} <= set(reached)
    unnamed = "return [...document.querySelectorAll('input, select')].filter((each) => !each.labels.length).length"
    assert driver.execute_script(unnamed) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_it_can_be_read_on_any_screen(browser: Any, address: str, size: tuple[int, int], scheme: str) -> None:
    driver = opened(browser, address, size=size, scheme=scheme)
    driver.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    driver.execute_script(AXE)
    found = driver.execute_async_script(
        f"const done = arguments[0]; {RULES}.then(done, (error) => done({{error: String(error)}}))"
    )
    broken = [(each["id"], each["nodes"][0]["html"][:200], each["nodes"][0]["failureSummary"]) for each in found["violations"]]
    assert broken == []
    assert {"color-contrast", "label", "scrollable-region-focusable"} <= {each["id"] for each in found["passes"]}
    assert driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_it_prints(browser: Any, address: str, tmp_path: Path) -> None:
    import base64

    driver = opened(browser, address)
    assert base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"]).startswith(b"%PDF")
