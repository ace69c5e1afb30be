"""Swagger UI in Chromium, which can reach nothing but this machine."""

import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tools import environment, require
from tests.until import PATIENCE

webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class Page:
    """The page of one service, as a user works with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> WebElement:
        """The element, once it is there and shown."""

        def shown(driver: Any) -> WebElement | None:
            return next((e for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None)

        found: WebElement = WebDriverWait(self.driver, PATIENCE).until(shown, f"no element {selector}")
        return found

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)

    def add(self, numbers: list[int]) -> str:
        """Executes a request of `/v1/add` by "Try it out"; the answer that the page shows."""
        add = "#operations-inference-post_v1_add"
        self.click(f"{add} .opblock-summary-control")
        self.click(f"{add} .try-out__btn")
        body = self.find(f"{add} textarea.body-param__text")
        assert json.loads(body.get_attribute("value") or "").keys() == {"numbers", "label"}  # an example, by the schema
        body.clear()
        body.send_keys(json.dumps({"numbers": numbers, "label": "both"}))
        self.click(f"{add} button.execute")
        shown = self.find(f"{add} .live-responses-table .response .highlight-code code").text
        status = self.find(f"{add} .live-responses-table .response td.response-col_status").text
        assert status.startswith("200")
        return shown

    def requested(self) -> set[str]:
        """All URLs that were asked for through the network."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
        return {url for url in urls if not url.startswith(("data:", "blob:", "chrome:"))}


@pytest.fixture
def page() -> Iterator[Page]:
    # A short name, since the path of a socket in it must be; tmp_path may be longer.
    with tempfile.TemporaryDirectory(prefix="browser") as folder, started(folder) as driver:
        yield Page(driver)


def started(folder: str) -> Any:
    """A browser all of whose files lie in `folder`."""
    options = webdriver.ChromeOptions()
    options.binary_location = require("chromium")
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-background-networking", ONLY_HERE):
        options.add_argument(argument)
    if os.getuid() == 0:  # Chromium's sandbox is not for root
        options.add_argument("--no-sandbox")
    options.add_argument(f"--user-data-dir={folder}/profile")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(require("chromedriver"), env=environment() | {"TMPDIR": folder, "HOME": folder})
    return webdriver.Chrome(options, service)
