"""Core where the system gives it less than it asks for."""

from __future__ import annotations

import errno

import pytest

from tests import engine

# A filter of system calls (seccomp(2), classic BPF) that refuses epoll_pwait2 (441 on all architectures).
REFUSE = """
import ctypes, struct
def op(code, jt, jf, k): return struct.pack("=HBBI", code, jt, jf, k)
program = ctypes.create_string_buffer(
    op(0x20, 0, 0, 0) + op(0x15, 0, 1, 441) + op(0x06, 0, 0, 0x50000 | {error}) + op(0x06, 0, 0, 0x7FFF0000)
)
header = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
long = ctypes.c_ulong
assert libc.prctl(38, long(1), long(0), long(0), long(0)) == 0, "no new privileges"
assert libc.prctl(22, long(2), header, long(0), long(0)) == 0, "filter"
"""


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_core_waits_in_milliseconds_where_epoll_pwait2_is_refused(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RUN", REFUSE.format(error=error) + engine.RUN)
    core = engine.Engine()
    with core.worker(lambda channel, item: channel.answer(item, 200, bytes(item), 0)):
        assert core.post(b"hello")[2] == b"hello"
    core.close()
