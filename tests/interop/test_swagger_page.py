"""The page of Swagger UI in Chromium: requests, uploads, and what the page's policy refuses."""

import json
from pathlib import Path

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from mosec_cy._web import openapi
from tests.interop.described import SOURCE
from tests.interop.swagger import Page, page
from tests.service import Serve
from tests.until import PATIENCE

__all__ = ["page"]

pytestmark = pytest.mark.timeout(240)  # a browser on a busy machine


def test_a_request_is_executed_from_the_page(serve: Serve, page: Page) -> None:
    service = serve(SOURCE).wait_ready()
    base = f"http://{service.address}"
    page.driver.get(f"{base}/openapi/swagger")  # no slash: sent on
    assert json.loads(page.add([1, 41])) == {"total": 42, "label": "both"}
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
    picture = Path(openapi.__file__).parent / "swagger_ui" / "favicon-32x32.png"
    page.find(f"{image} input[type=file]").send_keys(str(picture))
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
