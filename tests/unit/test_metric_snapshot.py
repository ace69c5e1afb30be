"""What a process says of its registry, and what the master takes from it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosec_cy._process.snapshot import LARGEST, Family, Sample, decode

ROOT = Path(__file__).parents[2]


def recorded(program: str) -> tuple[list[Any], str]:
    """What a Recorder says in a fresh process after `program`, and the log."""
    ending = """
        import json, msgspec
        print(json.dumps(msgspec.to_builtins(decode(recorder.encoded()))))
    """
    start = """
        from mosec_cy._process.snapshot import Recorder, decode
        recorder = Recorder()
    """
    source = "".join(textwrap.dedent(part) for part in (start, program, ending))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout), done.stderr


def test_nothing_is_imported_for_a_process_that_records_nothing() -> None:
    assert recorded("") == ([], "")
    assert recorded("recorder.encoded(); import sys; assert 'prometheus_client' not in sys.modules") == ([], "")


def test_prometheus_client_is_being_imported() -> None:
    """Another thread of the process imports it, while this one is asked."""
    assert recorded("import sys, types; sys.modules['prometheus_client'] = types.ModuleType('prometheus_client')") == (
        [],
        "",
    )


def test_all_kinds() -> None:
    families, log = recorded(
        """
        import prometheus_client as p
        p.Counter("c", "count", ["a"]).labels("x").inc(2)
        p.Gauge("g", "gauge").set(1.5)
        p.Histogram("h", "histogram", buckets=[1]).observe(0.5, {"trace": "exemplars have no place in this format"})
        p.Summary("s", "summary").observe(3)
        p.Info("i", "info").info({"version": "1"})
        p.Enum("e", "enum", states=["up", "down"]).state("down")
        """
    )
    assert log == ""
    assert families == [
        ["c", "counter", "count", [["_total", {"a": "x"}, 2.0]]],
        ["g", "gauge", "gauge", [["", {}, 1.5]]],
        [
            "h",
            "histogram",
            "histogram",
            [["_bucket", {"le": "1.0"}, 1.0], ["_bucket", {"le": "+Inf"}, 1.0], ["_count", {}, 1.0], ["_sum", {}, 0.5]],
        ],
        ["s", "summary", "summary", [["_count", {}, 1.0], ["_sum", {}, 3.0]]],
        ["i", "info", "info", [["_info", {"version": "1"}, 1.0]]],
        ["e", "stateset", "enum", [["", {"e": "up"}, 0.0], ["", {"e": "down"}, 1.0]]],
    ]


def test_a_custom_collector_may_say_what_the_format_does_not_know() -> None:
    families, log = recorded(
        """
        import prometheus_client as p
        from prometheus_client.core import Metric

        class Odd:
            def describe(self):
                return []

            def collect(self):
                odd = Metric("odd", "has a sample of another name", "gauge")
                odd.add_sample("strange", {}, 1)
                yield odd
                quantiles = Metric("q", "a quantile cannot be summed", "summary")
                quantiles.add_sample("q", {"quantile": "0.5"}, 1)
                quantiles.add_sample("q_count", {}, 2)
                yield quantiles

        p.REGISTRY.register(Odd())
        for _ in range(3):
            recorder.encoded()
        """
    )
    assert families == [["q", "summary", "a quantile cannot be summed", [["_count", {}, 2.0]]]]
    (line,) = log.splitlines()
    assert "/metrics lacks 'odd': 'strange' is no name of a gauge's sample" in line


def test_a_forked_process_says_what_it_recorded_itself() -> None:
    families, _ = recorded(
        """
        import prometheus_client as p
        c, h = p.Counter("c", "", ["a"]), p.Histogram("h", "", buckets=[1])
        g, untouched = p.Gauge("g", ""), p.Gauge("untouched", "")
        c.labels("x").inc(5); h.observe(0.5); g.set(1); untouched.set(2)
        recorder = Recorder(forked=True)
        c.labels("x").inc(); c.labels("y").inc(); h.observe(2); g.set(7)
        """
    )
    by_name = {family[0]: family[3] for family in families}
    assert by_name["c"] == [["_total", {"a": "x"}, 1.0], ["_total", {"a": "y"}, 1.0]]
    assert [value for _, _, value in by_name["h"]] == [0.0, 1.0, 1.0, 2.0]
    assert by_name["g"] == [["", {}, 7.0]]
    assert by_name["untouched"] == []


def test_labels_and_help_that_are_no_text_become_one() -> None:
    families, log = recorded(
        """
        import prometheus_client as p
        from prometheus_client.core import Metric

        class Odd:
            def describe(self):
                return []

            def collect(self):
                odd = Metric("odd", chr(0xd800) + "é", "gauge")
                odd.add_sample("odd", {"a": 5}, True)
                yield odd

        p.REGISTRY.register(Odd())
        """
    )
    assert families == [["odd", "gauge", "?é", [["", {"a": "5"}, 1.0]]]]
    assert log == ""


@pytest.mark.parametrize("error", ["OSError", "SystemExit"])
def test_a_collector_that_raises(error: str) -> None:
    """SystemExit would end the thread that answers the master, without a word."""
    families, log = recorded(
        f"""
        import prometheus_client as p
        p.Counter("before", "b").inc()
        class Broken:
            def collect(self):
                raise {error}("no sensor")
            def describe(self):
                return []
        p.REGISTRY.register(Broken())
        """
    )
    assert [name for name, *_ in families] == ["before"]
    (line,) = log.splitlines()
    assert "/metrics lacks what a collector of this process should have said: " + error in line


REFUSED = {
    "not bytes": "text",
    "too large": b"\xc4" * (LARGEST + 1),
    "nothing": b"",
    "not a list": b"\x80",
    "a name with a line break": msgspec.msgpack.encode([["a\nb 1", "gauge", "", []]]),
    "a name with one at its end": msgspec.msgpack.encode([["a\n", "gauge", "", []]]),
    "no such kind": msgspec.msgpack.encode([["a", "gouge", "", []]]),
    "a label that is no name": msgspec.msgpack.encode([["a", "gauge", "", [["", {"b c": "x"}, 1.0]]]]),
    "a label with a colon": msgspec.msgpack.encode([["a", "gauge", "", [["", {"b:c": "x"}, 1.0]]]]),
    "a label that is a number": msgspec.msgpack.encode([["a", "gauge", "", [["", {"b": 1}, 1.0]]]]),
    "a sample of another kind": msgspec.msgpack.encode([["a", "gauge", "", [["_total", {}, 1.0]]]]),
    "a value that is a text": msgspec.msgpack.encode([["a", "gauge", "", [["", {}, "1"]]]]),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match="snapshot of metrics|has a sample that no"):
        decode(body)


@given(st.binary(max_size=64))
def test_random_bytes_are_refused_or_read(body: bytes) -> None:
    try:
        families = decode(body)
    except ValueError:
        return
    assert all(isinstance(family, Family) for family in families)


def test_what_was_sent_arrives() -> None:
    sent = [Family("a", "counter", "h", [Sample("_total", {"b": "é\n"}, 1.5)])]
    assert decode(msgspec.msgpack.encode(sent)) == sent
