"""Codecs of the mixins: any bytes are decoded or refused as documented, what is encoded comes back."""

import math
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from mosec_cy import DecodingError, EncodingError, ValidationError, Worker
from mosec_cy.mixin import MsgpackMixin, NumBinIPCMixin, TypedJSONMixin, TypedMsgPackMixin

numbin = pytest.importorskip("numbin", reason="needs the extra 'numbin'")


class Inner(msgspec.Struct):
    name: str
    numbers: list[float]
    raw: bytes = b""


class Outer(msgspec.Struct):
    inner: Inner
    by_name: dict[str, Inner | None]
    size: tuple[int, int]


class Packed(MsgpackMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


class Typed(TypedMsgPackMixin, Worker):
    def forward(self, data: Outer) -> Outer:
        return data


class Anything(TypedMsgPackMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


class Json(TypedJSONMixin, Worker):
    def forward(self, data: Outer) -> Outer:
        return data


class Arrays(NumBinIPCMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


PACKED, TYPED, ANYTHING, JSON, ARRAYS = Packed(), Typed(), Anything(), Json(), Arrays()

# How long values take to be made up depends on what else the machine does.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text() | st.binary()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
INNERS = st.builds(Inner, st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.binary())
SIZES = st.integers(-(2**63), 2**63 - 1)
OUTERS = st.builds(Outer, INNERS, st.dictionaries(st.text(), st.none() | INNERS, max_size=3), st.tuples(SIZES, SIZES))


@st.composite
def corrupt(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid message with a few bytes changed, or cut off, or with bytes behind it."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(data)))
    return bytes(data[:cut] if draw(st.booleans()) else data + draw(st.binary(max_size=4)))


def shown(value: Any) -> Any:
    """What a value holds, comparable: NaN is NaN, and extension types, whose `repr` is an address, are their bytes."""
    match value:
        case list() | tuple():
            return [shown(inner) for inner in value]
        case dict():
            return [(shown(key), shown(inner)) for key, inner in value.items()]
        case msgspec.msgpack.Ext():
            return ["Ext", value.code, bytes(value.data)]
    return repr(value)


def try_decode(decode: Any, data: bytes, *refusals: type[Exception]) -> None:
    """It decodes them, or refuses them; and from each kind of buffer alike."""
    seen: list[Any] = []
    for kind in (bytes, bytearray, memoryview):
        try:
            seen.append(shown(decode(kind(data))))
        except refusals as error:
            seen.append(str(error))
    assert seen == seen[:1] * 3
    assert seen[0] != ""  # a refusal says why


@patient
@given(st.binary() | corrupt(VALUES.map(msgspec.msgpack.encode)))
@example(b"\xd7\xff" + b"\xff" * 8)  # a timestamp outside of its bounds
@example(b"\xc7\x0c\xff" + b"\xff" * 12)
@example(b"\x81\xc0\xc0")
@example(b"\xd4\x00\x00")  # an extension type
@example(b"\xca\x7f\xc0\x00\x00")  # NaN
def test_any_bytes_as_msgpack(data: bytes) -> None:
    try_decode(PACKED.deserialize, data, DecodingError)
    try_decode(ANYTHING.deserialize, data, DecodingError, ValidationError)


@patient
@given(st.binary() | corrupt(OUTERS.map(msgspec.msgpack.encode)) | VALUES.map(msgspec.msgpack.encode))
def test_any_bytes_as_typed_msgpack(data: bytes) -> None:
    try_decode(TYPED.deserialize, data, DecodingError, ValidationError)


@patient
@given(st.binary() | corrupt(OUTERS.map(msgspec.json.encode)) | VALUES.map(msgspec.json.encode))
def test_any_bytes_as_typed_json(data: bytes) -> None:
    try_decode(JSON.deserialize, data, DecodingError, ValidationError)


@patient
@given(st.binary() | corrupt(nps.arrays(np.float32, nps.array_shapes()).map(numbin.dumps)))
def test_any_bytes_as_numbin(data: bytes) -> None:
    try_decode(ARRAYS.deserialize_ipc, data, DecodingError)


@patient
@given(VALUES)
def test_msgpack_there_and_back(value: Any) -> None:
    encoded = PACKED.serialize(value)
    assert msgpack.unpackb(encoded) == value
    assert PACKED.deserialize(encoded) == msgpack.unpackb(encoded, use_list=False)
    assert ANYTHING.deserialize(ANYTHING.serialize(value)) == value


@patient
@given(OUTERS)
def test_typed_there_and_back(value: Outer) -> None:
    assert TYPED.deserialize(TYPED.serialize(value)) == value
    assert JSON.deserialize(JSON.serialize(value)) == value


@patient
@given(nps.arrays(nps.scalar_dtypes(), nps.array_shapes(min_dims=0, min_side=0, max_dims=4)))
def test_arrays_there_and_back(array: np.ndarray[Any, Any]) -> None:
    try:
        encoded = ARRAYS.serialize_ipc(array)
    except EncodingError:
        assert array.dtype.kind not in "biufc"
        return
    back = ARRAYS.deserialize_ipc(encoded)
    assert (back.shape, back.dtype) == (array.shape, array.dtype.newbyteorder("="))
    np.testing.assert_array_equal(back, array)


@patient
@given(
    st.recursive(SCALARS | st.complex_numbers() | st.sets(st.integers()), st.lists, max_leaves=5) | st.just(math.nan)
)
def test_any_answer_is_encoded_or_refused(value: Any) -> None:
    for worker in (PACKED, ANYTHING, JSON):
        try:
            worker.serialize(value)
        except EncodingError as error:
            refusal = str(error)
            assert refusal
