"""The master's messages to core."""

import os
import socket
import threading

from mosec_cy._master.core import CoreLink, ToCore


def test_more_messages_than_the_socket_holds_wait_for_core() -> None:
    ours, core = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    link = CoreLink.__new__(CoreLink)  # one without a process
    link._socket = ours
    sizes: list[int] = []

    def read() -> None:
        while data := core.recv(64):
            sizes.append(len(data))

    reader = threading.Thread(target=read)
    with ours, core:
        for _ in range(100):  # until core listens
            link.send(ToCore.SLOT_READY)
        reader.start()
        for slot in range(2000):
            link.send(ToCore.SLOT_STARTED, slot, 1, os.getpid())
        ours.shutdown(socket.SHUT_WR)
        reader.join()
    assert sizes == [24] * 2100


def test_messages_to_a_core_that_has_died_go_nowhere() -> None:
    ours, core = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    link = CoreLink.__new__(CoreLink)
    link._socket = ours
    with ours:
        full = threading.Thread(target=lambda: [link.send(ToCore.LISTEN) for _ in range(2000)])
        full.start()
        core.recv(64)
        core.close()
        full.join(20)
        assert not full.is_alive()
