"""A service below a path of a real nginx, which takes the path off: the description, its page, and streams."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urljoin

import httpx
import openapi_spec_validator
import pytest
from httpx_sse import connect_sse

from tests.interop.described import SOURCE
from tests.interop.swagger import Page, page
from tests.nginx import nginx
from tests.programs import STREAM
from tests.service import Serve
from tests.until import PATIENCE

__all__ = ["page"]

pytestmark = pytest.mark.timeout(240)  # a browser on a busy machine


@pytest.mark.parametrize(
    ("arguments", "prefix", "server"),
    [
        (["--root-path", "/models/first"], "/models/first", "/models/first"),
        ([], "/models", ".."),
        ([], "", ".."),
    ],
    ids=repr,
)
def test_a_request_is_executed_from_the_page(
    serve: Serve, page: Page, tmp_path: Path, arguments: list[str], prefix: str, server: str
) -> None:
    service = serve(SOURCE, *arguments).wait_ready()
    with nginx(service.address, prefix, tmp_path / "nginx") as address:
        base = f"http://{address}{prefix}"
        description = httpx.get(f"{base}/openapi/metadata.json").json()
        assert description["servers"] == [{"url": server}]
        assert urljoin(f"{base}/openapi/metadata.json", server).rstrip("/") == base
        openapi_spec_validator.validate(description)
        page.driver.get(f"{base}/openapi/swagger")
        assert json.loads(page.add([1, 41])) == {"total": 42, "label": "both"}
        requested = page.requested()
        assert {f"{base}/openapi/metadata.json", f"{base}/v1/add"} <= requested
        assert [url for url in requested if not url.startswith(f"{base}/")] == []
        assert page.driver.get_log("browser") == []


def test_events_come_one_by_one(serve: Serve, gate: Path, tmp_path: Path) -> None:
    """nginx asks by HTTP/1.0 unless told otherwise, and buffers answers of that unless they ask it not to."""
    service = serve(STREAM, str(gate), "--timeout", "60000").wait_ready()
    seen = []
    with (
        nginx(service.address, "/models", tmp_path / "nginx") as address,
        httpx.Client(timeout=PATIENCE) as client,
        connect_sse(client, "POST", f"http://{address}/models/inference", json=1) as source,
    ):
        assert source.response.headers["cache-control"] == "no-cache"
        events = source.iter_sse()
        seen.append(next(events).data)
        with gate.open("wb", buffering=0) as writer:
            for _ in range(2):
                writer.write(b"1")
                seen.append(next(events).data)
        seen += [event.data for event in events]
    assert seen == ["first", "next", "next"]
