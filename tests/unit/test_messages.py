"""Messages between master and worker arrive whole, however the bytes come."""

import os
import socket
import struct
from collections.abc import Iterator

import msgpack
import pytest

from mosec_cy._base import messages
from mosec_cy._base.messages import DescriptorInbox, Inbox


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


def pipes(count: int) -> list[int]:
    """`count` reading ends; their writers have been closed."""
    ends = [os.pipe() for _ in range(count)]
    for _, writer in ends:
        os.close(writer)
    return [reader for reader, _ in ends]


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_descriptors_come_with_their_messages(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    before = open_descriptors()
    inbox = DescriptorInbox(ours)
    sent = pipes(4)
    messages.send(theirs, {"collect": True})
    messages.send(theirs, {"attach": 1}, descriptors=sent[:2])
    messages.send(theirs, {"attach": 2}, descriptors=sent[2:])
    kinds = [os.fstat(fd).st_ino for fd in sent]
    got = []
    for message in inbox.take():
        if "attach" in message:
            got += inbox.claim(2)
    assert [os.fstat(fd).st_ino for fd in got] == kinds
    assert not any(os.get_inheritable(fd) for fd in got)
    for fd in sent + got:
        os.close(fd)
    assert open_descriptors() == before


def test_descriptors_that_nobody_claims_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = DescriptorInbox(ours)
    sent = pipes(4)
    before = open_descriptors()
    messages.send(theirs, {"collect": True}, descriptors=sent)  # more than it takes: the kernel closes the others
    assert list(inbox.take()) == [{"collect": True}]
    messages.send(theirs, {"attach": 1})
    for _ in inbox.take():
        with pytest.raises(ValueError, match="0 descriptors came where 2 were expected"):
            inbox.claim(2)
    assert open_descriptors() == before
    for fd in sent:
        os.close(fd)


def test_descriptors_before_the_end_of_their_message(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    inbox = DescriptorInbox(ours)
    sent = pipes(2)
    body = msgpack.packb({"attach": 1})
    whole = struct.pack("=I", len(body)) + body
    socket.send_fds(theirs, [whole[:1]], sent)
    assert list(inbox.take()) == []
    theirs.send(whole[1:])
    got = [fd for message in inbox.take() if message["attach"] == 1 for fd in inbox.claim(2)]
    for fd in [*sent, *got]:
        os.close(fd)
    assert len(got) == 2


def test_an_inbox_for_messages_only_takes_no_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sent = pipes(1)
    before = open_descriptors()
    messages.send(theirs, {"ready": True}, descriptors=sent)
    assert list(Inbox(ours).take()) == [{"ready": True}]
    assert open_descriptors() == before
    os.close(sent[0])
