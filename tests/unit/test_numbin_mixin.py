"""NumBinIPCMixin on its own."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from mosec_cy import DecodingError, EncodingError, Worker
from mosec_cy.mixin import NumBinIPCMixin

numbin = pytest.importorskip("numbin", reason="needs the extra 'numbin'")


class Passes(NumBinIPCMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


ARRAYS = {
    "floats": np.arange(12, dtype=np.float32).reshape(3, 4),
    "column-major": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "a part of one": np.arange(100)[10:90:3],
    "big-endian": np.arange(3, dtype=">i4"),
    "booleans": np.array([[True, False]]),
    "complex": np.array([1j]),
    "no dimension": np.array(3.5),
    "empty": np.zeros((0, 4)),
    "the longest": np.zeros(65535, np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_there_and_back(name: str) -> None:
    array, worker = ARRAYS[name], Passes()
    back = worker.deserialize_ipc(worker.serialize_ipc(array))
    np.testing.assert_array_equal(back, array)
    assert back.dtype.name == array.dtype.name
    assert back.shape == array.shape


@pytest.mark.parametrize("name", sorted(set(ARRAYS) - {"big-endian"}))  # numbin itself loses the byte order
def test_written_as_the_package_writes(name: str) -> None:
    assert bytes(Passes().serialize_ipc(ARRAYS[name])) == numbin.dumps(ARRAYS[name])


def test_scalars_of_numpy() -> None:
    worker = Passes()
    assert bytes(worker.serialize_ipc(np.float32(3.5))) == numbin.dumps(np.array(3.5, np.float32))
    assert worker.deserialize_ipc(worker.serialize_ipc(np.True_)).shape == ()


def test_read_in_place() -> None:
    buffer = bytearray(numbin.dumps(np.arange(3)))
    array = Passes().deserialize_ipc(memoryview(buffer))
    buffer[-8] = 9
    assert array.tolist() == [0, 1, 9]
    assert array.flags.writeable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not NoneType"),
        ([1, 2], "not list"),
        (np.array([None]), "not object"),
        (np.array(["x"]), "not <U1"),
        (np.zeros(2, dtype=[("a", "i4")]), "not \\[\\('a', '<i4'\\)\\]"),
        (np.zeros(65536, np.uint8), "up to 65535"),
    ],
)
def test_what_it_cannot_hold(value: Any, text: str) -> None:
    with pytest.raises(EncodingError, match=text):
        Passes().serialize_ipc(value)


GOOD = numbin.dumps(np.arange(3))


@pytest.mark.parametrize("data", [b"", b"x", GOOD[:-1], GOOD + b"z", b"\xff\xff" + GOOD[2:], b"\x05\0\xff\xff"])
def test_what_it_cannot_read(data: bytes) -> None:
    with pytest.raises(DecodingError, match="NumBin format"):
        Passes().deserialize_ipc(data)


@pytest.mark.parametrize("extra", ["numbin", "redis"])
def test_what_to_install(extra: str) -> None:
    name = {"numbin": "NumBinIPCMixin", "redis": "RedisShmIPCMixin"}[extra]
    code = f"""
import sys
sys.modules[{extra!r}] = None  # as if it were not installed
from mosec_cy.mixin import {name}
class Model({name}):
    def forward(self, data): return data
Model()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    message = f"ModuleNotFoundError: Model needs the package '{extra}': pip install \"mosec_cy[{extra}]\""
    assert run.stderr.splitlines()[-1] == message
