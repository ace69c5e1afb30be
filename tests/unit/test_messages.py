"""Messages between master and worker arrive whole, however the bytes come."""

import socket
import struct
from collections.abc import Iterator

import msgpack
import pytest

from mosec_cy import messages
from mosec_cy.messages import Inbox


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_several_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = Inbox(ours)
    messages.send(theirs, {"ready": True})
    messages.send(theirs, {"failed": "é" * 1000})
    assert list(inbox.take()) == [{"ready": True}, {"failed": "é" * 1000}]
    assert list(inbox.take()) == []
    assert not inbox.closed


def test_byte_by_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = Inbox(ours)
    body = msgpack.packb({"ready": True})
    whole = struct.pack("=I", len(body)) + body
    for at in range(len(whole)):
        assert list(inbox.take()) == []
        theirs.send(whole[at : at + 1])
    assert list(inbox.take()) == [{"ready": True}]


def test_the_last_words_of_a_peer_that_has_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = Inbox(ours)
    messages.send(theirs, {"failed": "why"})
    theirs.close()
    assert list(inbox.take()) == [{"failed": "why"}]
    assert inbox.closed


def test_a_peer_that_was_killed_with_unread_data(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = Inbox(ours)
    ours.send(b"never read")
    theirs.close()  # the kernel reports this as a reset
    assert list(inbox.take()) == []
    assert inbox.closed


def test_nonsense_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = Inbox(ours)
    theirs.send(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="is not one"):
        list(inbox.take())
