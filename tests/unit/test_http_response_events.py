"""Events as bytes: byte for byte, and read back by a decoder that others wrote."""

from __future__ import annotations

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.http_response import format_event

EVENTS = {
    b"": b"data: \n\n",
    b"a": b"data: a\n\n",
    b" a ": b"data:  a \n\n",
    b"a\nb": b"data: a\ndata: b\n\n",
    b"a\r\nb": b"data: a\ndata: b\n\n",
    b"a\rb": b"data: a\ndata: b\n\n",
    b"a\n": b"data: a\ndata: \n\n",
    b"\r": b"data: \ndata: \n\n",
    b"\r\n": b"data: \ndata: \n\n",
    b"\n\r": b"data: \ndata: \ndata: \n\n",
    b"\r\r\n\n": b"data: \ndata: \ndata: \ndata: \n\n",
    b"id: 7\nretry: 1\n\nevent: x": b"data: id: 7\ndata: retry: 1\ndata: \ndata: event: x\n\n",
    "ä €\0".encode(): "data: ä €\0\n\n".encode(),
}


@pytest.mark.parametrize("text", EVENTS)
def test_lines(text: bytes) -> None:
    assert format_event(text) == EVENTS[text]


def test_name_and_prefix() -> None:
    assert format_event(b"why\nso", b"error", b"422: ") == b"event: error\ndata: 422: why\ndata: so\n\n"
    assert format_event(b"", b"error", b"422") == b"event: error\ndata: 422\n\n"


def decode(raw: bytes) -> list[ServerSentEvent]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=raw)
    return list(EventSource(response).iter_sse())


@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n: "))))
def test_read_back(texts: list[str]) -> None:
    """Whatever the texts are: as many events, with the same lines."""
    events = decode(b"".join(format_event(text.encode()) for text in texts))
    assert [event.data for event in events] == [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert {event.event for event in events} <= {"message"}
