"""Many connections at once, of clients that behave badly."""

from __future__ import annotations

import collections
import contextlib
import itertools
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_client import reset
from tests.until import PATIENCE


@contextlib.contextmanager
def descriptors(n: int) -> Iterator[None]:
    """The soft limit of this process, and of those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        pytest.skip(f"the limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def take_descriptors(pid: int) -> None:
    """The process can open nothing more until it closes something."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(fd for fd in itertools.count() if fd not in used)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))


def give_descriptors(pid: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def hurried_resets(port: int, count: int) -> None:
    """Connections that are reset without waiting for anything, many before the server has seen them."""
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        reset(client)


def dribble(port: int, count: int, begin: bytes, drop: bytes) -> collections.Counter[bytes]:
    """Clients that send a drop now and then, each until it is told something; how many were told which first line."""
    told: collections.Counter[bytes] = collections.Counter()
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = stack.enter_context(connect(port))
            client.sendall(begin)
            selector.register(client, selectors.EVENT_READ)
        while left := [key.fileobj for key in selector.get_map().values()]:
            assert time.monotonic() < deadline, f"{len(left)} were never told anything; {told}"
            for key, _ in selector.select(0.05):  # its pace
                assert isinstance(key.fileobj, socket.socket)
                told[key.fileobj.recv(1000).partition(b"\r\n")[0]] += 1
                selector.unregister(key.fileobj)
                left.remove(key.fileobj)
            for client in left:
                assert isinstance(client, socket.socket)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(drop)
    return told
