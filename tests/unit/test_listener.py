"""Addresses to listen on."""

import errno
import os
import socket
from pathlib import Path

import pytest

from mosec_cy._master.listener import Listener


def connects(family: int, address: object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        return client.connect_ex(address) == 0


def test_the_door_opens_with_listen() -> None:
    listener = Listener("127.0.0.1", 0)
    host, _, port = listener.address.rpartition(":")
    assert host == "127.0.0.1"
    assert not connects(socket.AF_INET, (host, int(port)))
    listener.listen()
    assert connects(socket.AF_INET, (host, int(port)))
    listener.close()
    assert not connects(socket.AF_INET, (host, int(port)))


def test_a_port_in_use() -> None:
    first = Listener("127.0.0.1", 0)
    first.listen()
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} is in use: choose a free one with --port") as caught:
        Listener("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    first.close()


def test_a_port_that_was_taken_between_bind_and_listen() -> None:
    first = Listener("127.0.0.1", 0)
    second = Listener("127.0.0.1", int(first.address.rpartition(":")[2]))  # nobody listens yet
    second.listen()
    with pytest.raises(OSError, match="is in use: choose a free one"):
        first.listen()
    first.close()
    second.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_ipv6() -> None:
    listener = Listener("::1", 0)
    listener.listen()
    assert listener.address.startswith("[::1]:")
    assert connects(socket.AF_INET6, ("::1", int(listener.address.rpartition(":")[2])))
    listener.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_any_address_of_ipv6_takes_ipv4_too() -> None:
    listener = Listener("::", 0)
    listener.listen()
    assert connects(socket.AF_INET, ("127.0.0.1", int(listener.address.rpartition(":")[2])))
    listener.close()


def test_a_name() -> None:
    listener = Listener("localhost", 0)
    listener.listen()
    ports = set()
    for fd in listener.fds:
        with socket.socket(fileno=os.dup(fd)) as bound:
            ports.add(bound.getsockname()[1])
    assert len(ports) == 1
    listener.close()


def test_a_name_that_is_none() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 'no such host': .*--address"):
        Listener("no such host", 0)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0 is no address of this machine: .*--address"):
        Listener("192.0.2.1", 0)


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = Listener(f"unix:{path}", 8000)
    assert listener.address == f"unix:{path}"
    listener.listen()
    assert connects(socket.AF_UNIX, str(path))
    with pytest.raises(OSError, match="is in use"):
        Listener(f"unix:{path}", 8000)
    assert path.exists()
    listener.close()
    assert not path.exists()


def test_unix_socket_that_a_killed_server_left(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = Listener(f"unix:{path}", 8000)
    listener.listen()
    assert connects(socket.AF_UNIX, str(path))
    listener.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="is in use"):
        Listener(f"unix:{path}", 8000)
    assert path.read_text() == "precious"


def test_a_forked_copy_leaves_the_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = Listener(f"unix:{path}", 8000)
    listener.close_in_child()
    assert path.exists()
