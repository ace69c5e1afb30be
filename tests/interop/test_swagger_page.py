"""Swagger UI in Chromium, which can reach nothing but the service."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mosec_cy import swagger_ui
from tests.interop.described import SOURCE
from tests.service import PATIENCE, Serve
from tests.tools import environment, require

webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.timeout(240)  # a browser on a busy machine
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


def test_a_request_is_executed_from_the_page(serve: Serve, page: Page) -> None:
    service = serve(SOURCE).wait_ready()
    base = f"http://{service.address}"
    page.driver.get(f"{base}/openapi/swagger")  # no slash: sent on
    add = "#operations-inference-post_v1_add"
    page.click(f"{add} .opblock-summary-control")
    page.click(f"{add} .try-out__btn")
    body = page.find(f"{add} textarea.body-param__text")
    assert json.loads(body.get_attribute("value") or "").keys() == {"numbers", "label"}  # an example, by the schema
    body.clear()
    body.send_keys('{"numbers": [1, 41], "label": "both"}')
    page.click(f"{add} button.execute")
    answer = page.find(f"{add} .live-responses-table .response .highlight-code code")
    assert json.loads(answer.text) == {"total": 42, "label": "both"}
    assert page.find(f"{add} .live-responses-table .response td.response-col_status").text.startswith("200")

    assert page.driver.current_url.startswith(f"{base}/openapi/swagger/")
    requested = page.requested()
    assert {f"{base}/openapi/metadata.json", f"{base}/v1/add"} <= requested
    assert [url for url in requested if not url.startswith(f"{base}/")] == []
    assert page.driver.get_log("browser") == []  # no error, and nothing that the policy refused


def test_bytes_are_uploaded_and_an_image_is_shown(serve: Serve, page: Page) -> None:
    service = serve(SOURCE).wait_ready()
    page.driver.get(f"http://{service.address}/openapi/swagger/")
    image = "#operations-inference-post_image"
    page.click(f"{image} .opblock-summary-control")
    page.click(f"{image} .try-out__btn")
    page.find(f"{image} input[type=file]").send_keys(str(Path(swagger_ui.__file__).parent / "favicon-32x32.png"))
    page.click(f"{image} button.execute")
    shown = page.find(f"{image} .live-responses-table .response img")
    WebDriverWait(page.driver, PATIENCE).until(lambda _: shown.get_property("naturalWidth") == 32)
    assert page.driver.get_log("browser") == []


def test_the_policy_refuses_other_hosts(serve: Serve, page: Page) -> None:
    service = serve(SOURCE).wait_ready()
    page.driver.get(f"http://{service.address}/openapi/swagger/")
    refused = page.driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        document.addEventListener("securitypolicyviolation", event => done(event.blockedURI));
        fetch("http://validator.invalid/").catch(() => {});
        """
    )
    assert refused == "http://validator.invalid/"
