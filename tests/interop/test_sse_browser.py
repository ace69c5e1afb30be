"""Streams as a browser sees them: EventSource, and fetch with a reader, in headless Chromium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.browser import opened
from tests.interop.sse_service import STREAMS
from tests.service import Serve
from tests.tools import require
from tests.until import PATIENCE

LINES = ["plain", " lead", "two\nlines", "ä €", "last"]
BODY = json.dumps({"texts": LINES, "then": "invalid"})
PAGE = """
    <!doctype html>
    <script>
    const body = BODY;
    function throughEventSource() {
        return new Promise(resolve => {
            const seen = [];
            const source = new EventSource("/events?" + new URLSearchParams({body}));
            source.onopen = () => seen.push(["open", ""]);
            source.onmessage = event => seen.push(["message", event.data]);
            source.addEventListener("error", event => {
                if (event.data === undefined) return;          // the connection's end, not our event
                seen.push(["error", event.data]);
                source.close();
                resolve(seen);
            });
        });
    }
    async function throughFetch() {
        const response = await fetch("/events", {method: "POST", body});
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
        return text;
    }
    (async () => {
        const results = [await throughEventSource(), await throughFetch()];
        await fetch("/done", {method: "POST", body: JSON.stringify(results)});
    })();
    </script>
"""
FAILED = "SSE inference error: 422: Unprocessable Content: request validation error: so - it is"


@pytest.mark.timeout(4 * PATIENCE)
def test_event_source_and_fetch(serve: Serve, tmp_path: Path) -> None:
    require("chromium")
    service = serve(STREAMS, str(tmp_path / "no gate"), "--timeout", "30000").wait_ready()
    with opened(PAGE.replace("BODY", json.dumps(BODY)), service) as server:
        events, text = server.results.get(timeout=2 * PATIENCE)
    assert events == [["open", ""], *[["message", line] for line in LINES], ["error", FAILED]]
    lines = ["data: plain", "data:  lead", "data: two\ndata: lines", "data: ä €", "data: last"]
    assert text == "".join(line + "\n\n" for line in lines) + f"event: error\ndata: {FAILED}\n\n"
