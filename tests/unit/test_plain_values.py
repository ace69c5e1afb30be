"""Answers with values of other packages: an answer, or an error that names the type, where it is, and the way out."""

import dataclasses
import datetime
import decimal
import enum
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import attrs
import ml_dtypes
import msgpack
import msgspec
import numpy as np
import pandas as pd
import pytest

from mosec_cy import EncodingError, Worker
from mosec_cy.mixin import MsgpackMixin, TypedJSONMixin, TypedMsgPackMixin


class Json(TypedJSONMixin, Worker):
    def forward(self, data: Any) -> Any: ...


class Packed(MsgpackMixin, Worker):
    def forward(self, data: Any) -> Any: ...


class Typed(TypedMsgPackMixin, Worker):
    def forward(self, data: Any) -> Any: ...


FORMATS = {"JSON": (Json, msgspec.json.decode), "MessagePack": (Packed, msgpack.unpackb)}
FORMATS["MessagePack, typed"] = (Typed, msgspec.msgpack.decode)
EACH = pytest.mark.parametrize("form", FORMATS)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Data:
    x: Any


@attrs.define
class Attrs:
    x: Any


class Struct(msgspec.Struct):
    x: Any


class Texts(str):
    __slots__ = ()


RECORDS = np.array([(1, "2026-01-02T03:04:05")], dtype=[("n", int), ("t", "datetime64[ns]")])
HIDDEN = np.ma.array(np.array(["2026", "2027"], "datetime64[D]"), mask=[False, True])  # type: ignore[no-untyped-call]
FRAME = pd.DataFrame(
    {
        "n": pd.array([1, None], dtype="Int64"),
        "f": [0.5, 2],
        "t": pd.to_datetime(["2026-01-02T03:04:05.000000006", None]),
        "d": pd.to_timedelta(["1h", None]),
        "c": pd.Categorical(["a", None]),
    },
    index=["first", "second"],
)
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)

ANSWERS: list[tuple[Any, Any]] = [
    (np.longdouble(0.5), 0.5),
    (np.array([[0.5], [2]], np.longdouble), [[0.5], [2.0]]),
    ([np.float16(0.5), np.int8(-1), np.bool_(True), np.str_("a")], [0.5, -1, True, "a"]),
    (np.datetime64("2026-01-02"), "2026-01-02"),
    (np.datetime64("2026-01-02T03"), "2026-01-02T03:00:00"),
    (np.datetime64("2026-01-02T03:04:05", "ns"), "2026-01-02T03:04:05.000000000"),
    (np.datetime64("NaT"), None),
    (np.array([["2026-01-02"], ["NaT"]], "datetime64[s]"), [["2026-01-02T00:00:00"], [None]]),
    (HIDDEN, ["2026-01-01", None]),
    (np.timedelta64(90061500, "ms"), "P1DT3661.5S"),
    (np.timedelta64(-1, "ns"), "-PT0.000000001S"),
    (np.array([3, "NaT"], "timedelta64[M]"), ["P3M", None]),
    (np.timedelta64(2, "W"), "P14D"),
    (np.timedelta64(0, "s"), "PT0S"),
    (RECORDS, [{"n": 1, "t": "2026-01-02T03:04:05.000000000"}]),
    (RECORDS[0], {"n": 1, "t": "2026-01-02T03:04:05.000000000"}),
    (np.array([np.arange(2), None, {"a": np.longdouble(1)}], object), [[0, 1], None, {"a": 1.0}]),
    (np.array([1.5, 2], ml_dtypes.bfloat16), [1.5, 2.0]),
    (ml_dtypes.bfloat16(1.5), 1.5),
    (np.array([1.5], ml_dtypes.float8_e4m3fn), [1.5]),
    (np.array([[-3]], ml_dtypes.int4), [[-3]]),
    (pd.Timestamp("2026-01-02T03:04:05.6", tz="UTC"), "2026-01-02T03:04:05.600000+00:00"),
    (pd.Timedelta(hours=1), "P0DT1H0M0S"),
    (pd.Period("2026-01"), "2026-01"),
    ([pd.NaT, pd.NA], [None, None]),
    (pd.Series([1, None], dtype="Int64"), [1, None]),
    (pd.Series([0.5, 1]), [0.5, 1.0]),
    (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
    (pd.Categorical(["a"]), ["a"]),
    (pd.Index([1, 2]), [1, 2]),
    (pd.date_range("2026", periods=1), ["2026-01-01T00:00:00"]),
    (pd.DataFrame(), []),
    ({Texts("k"): Texts("v")}, {"k": "v"}),
    (decimal.Decimal("1.50"), "1.50"),
    ({1}, [1]),
    (Path("/tmp"), "/tmp"),
    (Colour.RED, "red"),
    (types.MappingProxyType({"a": np.arange(2)}), {"a": [0, 1]}),
    ([Data(np.arange(2)), Attrs(np.arange(2)), Struct(pd.NA)], [{"x": [0, 1]}, {"x": [0, 1]}, {"x": None}]),
]


@EACH
@pytest.mark.parametrize(("value", "expected"), ANSWERS, ids=[repr(value)[:40] for value, _ in ANSWERS])
def test_an_answer(form: str, value: Any, expected: Any) -> None:
    worker, decode = FORMATS[form]
    assert decode(worker().serialize({"in": [value]})) == {"in": [expected]}
    assert decode(worker().serialize(value)) == expected


@EACH
def test_a_data_frame_is_records(form: str) -> None:
    worker, decode = FORMATS[form]
    rows = decode(worker().serialize(FRAME))
    assert rows[0] == {"n": 1, "f": 0.5, "t": "2026-01-02T03:04:05.000000006", "d": "P0DT1H0M0S", "c": "a"}
    missing = {name for name, value in rows[1].items() if value is None or value != value}
    assert missing == {"n", "t", "d", "c"}


@EACH
@pytest.mark.parametrize(
    ("key", "expected"),
    [(np.str_("a"), "a"), (np.int64(3), 3), (Texts("a"), "a"), (pd.Timestamp(NOW), "2026-01-02T03:04:05")],
    ids=repr,
)
def test_keys(form: str, key: Any, expected: Any) -> None:
    worker, decode = FORMATS[form]
    answer = worker().serialize({"in": {key: np.float32(1)}})
    if form == "JSON":
        assert decode(answer) == {"in": {str(expected): 1.0}}
    else:
        assert msgspec.msgpack.decode(answer) == {"in": {expected: 1.0}}


class Endless:
    def tolist(self) -> Any:
        return Endless()


class Selfish:
    def tolist(self) -> Any:
        return self


class AnyAttribute:
    def __getattr__(self, name: str) -> Any:
        return AnyAttribute()


def looped() -> Any:
    array = np.empty(1, object)
    array[0] = array
    return array


GENERIC = "return dict, list, tuple, str, bytes, int, float, bool or None, arrays, dataclasses or msgspec.Struct, "
TOO_DEEP = "cannot hold the result: it holds itself, or is nested too deeply"
TWICE = pd.DataFrame([[1, 2]], columns=["a", "a"])
TUPLES = pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", 1)]))

ERRORS: list[tuple[Any, str]] = [
    (np.clongdouble(1j), f"numpy.{np.clongdouble.__name__} at ['in'][0]: write [x.real, x.imag]"),
    (np.array([1j]), "numpy.ndarray of complex128 at ['in'][0]: write [x.real, x.imag]"),
    (np.array([{"a": 1j}], object), "complex at ['in'][0][0]['a']: write [x.real, x.imag]"),
    (np.dtype("int64"), f"at ['in'][0]: {GENERIC}"),
    (np.ndarray, f"type at ['in'][0]: {GENERIC}"),
    (TWICE, "at ['in'][0]: its columns must have different names"),
    (pd.DataFrame({"a": [1j]}), "complex at ['in'][0][0]['a']: write [x.real, x.imag]"),
    (pd.Interval(0, 1), f"Interval at ['in'][0]: {GENERIC}"),
    (Data(Attrs(Struct({"k": object()}))), f"object at ['in'][0].x.x.x['k']: {GENERIC}"),
    (Selfish(), f"Selfish at ['in'][0]: {GENERIC}"),
    (AnyAttribute(), f"AnyAttribute at ['in'][0]: {GENERIC}"),
    (ValueError("x"), f"ValueError at ['in'][0]: {GENERIC}"),
    (range(3), f"range at ['in'][0]: {GENERIC}"),
    (Endless(), f"Endless at ['in'][0]: {GENERIC}"),
    (looped(), TOO_DEEP),
]


@EACH
@pytest.mark.parametrize(("value", "told"), ERRORS, ids=[type(value).__name__ for value, _ in ERRORS])
def test_an_error_that_says_what_to_do(form: str, value: Any, told: str) -> None:
    with pytest.raises(EncodingError) as caught:
        FORMATS[form][0]().serialize({"in": [value]})
    text = str(caught.value)
    assert text.startswith(form.partition(",")[0] + " cannot hold ")
    assert told in text
    assert "recursion" not in text


def test_a_frame_with_tuples_as_columns_is_no_json() -> None:
    with pytest.raises(EncodingError, match=r"a dict at \[0\] with a key of type tuple: write str\(key\)"):
        Json().serialize(TUPLES)


def test_no_package_is_imported_for_it() -> None:
    program = """
import sys
from mosec_cy._codecs.json_codec import encode
from mosec_cy.errors import EncodingError

for value in (1j, object(), range(2)):
    try:
        encode({"a": [value]})
    except EncodingError:
        pass
from mosec_cy import Server, Worker
from mosec_cy.mixin import MsgpackMixin, TypedJSONMixin

class Model(TypedJSONMixin, Worker):
    def forward(self, data: dict[str, int]) -> float: ...

sys.argv = ["program"]
Server().append_worker(Model, start_method="fork")
Model().serialize({"a": 1})
Model().deserialize(b'{"a": 1}')
print(*{"pandas", "torch", "ml_dtypes", "pydantic", "pydantic_core", "attrs", "attr"} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr
