"""A page in headless Chromium, and the server it comes from."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from tests.service import Service
from tests.tools import environment, require
from tests.until import PATIENCE


class PageServer(http.server.ThreadingHTTPServer):
    """Serves one page, passes `GET /events?BODY` and `POST /events` on to a service, and hears `POST /done`.

    A page may only read what comes from its own origin, and EventSource can only GET; so this stands between. It
    passes the service's bytes on as they come.
    """

    daemon_threads = True

    def __init__(self, page: str, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = page.encode()
        self.service = service
        self.results: queue.SimpleQueue[Any] = queue.SimpleQueue()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/events":
            self._pass_on(httpx.QueryParams(query)["body"].encode())
        else:
            self._answer("text/html" if path == "/" else "text/plain", self.server.page if path == "/" else b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/done":
            self.server.results.put(json.loads(body))
            self._answer("text/plain", b"")
        else:
            self._pass_on(body)

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, body: bytes) -> None:
        with self.server.service.client() as client, client.stream("POST", "/inference", content=body) as response:
            self.send_response(response.status_code)
            self.send_header("content-type", response.headers["content-type"])
            self.end_headers()
            with contextlib.suppress(OSError):  # the page has left
                for part in response.iter_raw():
                    self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def opened(page: str, service: Service) -> Iterator[PageServer]:
    """The server of a page that Chromium has opened."""
    chromium = require("chromium")
    with (
        PageServer(page, service) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = subprocess.Popen(
            [chromium, *options, "--remote-debugging-port=0", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment(), "TMPDIR": profile},
            start_new_session=True,
        )
        try:
            yield server
        finally:
            _end(browser)
            server.shutdown()
            thread.join()


def _end(browser: subprocess.Popen[bytes]) -> None:
    browser.terminate()
    try:
        browser.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        browser.kill()
        browser.wait()
    with contextlib.suppress(ProcessLookupError):  # its helpers, where it could not end them
        os.killpg(browser.pid, signal.SIGKILL)
