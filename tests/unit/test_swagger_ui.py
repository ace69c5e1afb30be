"""The page of Swagger UI and its files."""

import hashlib
import re
from pathlib import Path

import pytest

from mosec_cy._web import openapi
from mosec_cy._web.openapi import swagger_resource

FOLDER = Path(openapi.__file__).parent / "swagger_ui"


def test_the_files_are_those_of_the_release() -> None:
    digests = dict(re.findall(r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", (FOLDER / "VENDORED.md").read_text(), re.M))
    assert digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
        if path.is_file() and path.name != "VENDORED.md"
    }


def test_each_link_of_the_page_leads_to_a_file_and_nowhere_else() -> None:
    page = swagger_resource("/")
    assert page is not None
    assert page.content_type == "text/html; charset=utf-8"
    links = re.findall(rb'(?:href|src)="([^"]*)"', page.body)
    types = {}
    for link in links:
        found = swagger_resource("/" + link.decode())
        assert found is not None and found.body
        types[link.decode()] = found.content_type
    assert types == {
        "favicon-32x32.png": "image/png",
        "swagger-ui.css": "text/css; charset=utf-8",
        "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        "start.js": "text/javascript; charset=utf-8",
    }
    assert b"//" not in page.body.replace(b"<!DOCTYPE", b"")


def test_without_the_slash_the_browser_is_sent_on() -> None:
    found = swagger_resource("")
    assert found is not None
    assert b'http-equiv="refresh" content="0; url=swagger/"' in found.body
    assert b'href="swagger/favicon-32x32.png"' in found.body  # without one a browser looks for /favicon.ico


def test_a_file_is_read_once() -> None:
    first, second = swagger_resource("/swagger-ui-bundle.js"), swagger_resource("/swagger-ui-bundle.js")
    assert first is not None and second is not None
    assert first.body is second.body


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/__init__.py",
        "/VENDORED.md",
        "/../plan.py",
        "/./swagger-ui.css",
        "/swagger-ui.css/",
        "x",
        "xswagger-ui.css",
        "swagger-ui.css",
        "\ufffd",
    ],
)
def test_no_other_file_is_served(path: str) -> None:
    assert swagger_resource(path) is None
