"""How metrics of several processes become one, and what of them cannot."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mosec_cy._master.user_metrics import MOST_KEPT, Merger
from mosec_cy._process.snapshot import Family, Sample
from mosec_cy._web.metrics import as_metric
from mosec_cy.log import get_logger


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = get_logger()  # it does not propagate
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def counter(name: str, **values: float) -> Family:
    """A counter with one label, `a`."""
    return Family(name, "counter", "help", [Sample("_total", {"a": key}, value) for key, value in values.items()])


def gauge(name: str, value: float) -> Family:
    return Family(name, "gauge", "help", [Sample("", {}, value)])


def histogram(buckets: dict[str, float], total: float) -> Family:
    samples = [Sample("_bucket", {"le": bound, "a": "x"}, value) for bound, value in buckets.items()]
    samples += [Sample("_count", {"a": "x"}, buckets["+Inf"]), Sample("_sum", {"a": "x"}, total)]
    return Family("h", "histogram", "help", samples)


def samples(families: list[Family]) -> dict[str, float]:
    def key(family: Family, sample: Sample) -> str:
        labels = (f" {name}={value}" for name, value in sorted(sample.labels.items()))
        return family.name + sample.suffix + "".join(labels)

    return {key(family, sample): sample.value for family in families for sample in family.samples}


def test_sums_over_processes_and_labels() -> None:
    merger = Merger([])
    processes = [[counter("c", x=1, y=2), gauge("g", 5)], [counter("c", y=3, z=4), gauge("g", -1)], []]
    assert samples(merger.merged(processes)) == {"c_total a=x": 1, "c_total a=y": 5, "c_total a=z": 4, "g": 4}


def test_of_the_dead_counts_stay() -> None:
    merger = Merger([])
    merger.fold_exited([counter("c", x=1), gauge("g", 5), histogram({"1": 1, "+Inf": 2}, 3)])
    merger.fold_exited([counter("c", x=2, y=1)])
    merger.fold_exited([])
    assert samples(merger.merged([])) == {
        "c_total a=x": 3,
        "c_total a=y": 1,
        "h_bucket a=x le=1": 1,
        "h_bucket a=x le=+Inf": 2,
        "h_count a=x": 2,
        "h_sum a=x": 3,
    }
    assert samples(merger.merged([[counter("c", x=10)]]))["c_total a=x"] == 13


def test_facts_are_not_summed() -> None:
    info = Family("i", "info", "help", [Sample("_info", {"version": "1"}, 1)])
    other = Family("i", "info", "help", [Sample("_info", {"commit": "ab"}, 1)])
    states = [Sample("", {"s": "up"}, 1), Sample("", {"s": "down"}, 0)]
    merged = samples(Merger([]).merged([[info, Family("s", "stateset", "", states)], [info], [other]]))
    assert merged == {"i_info version=1": 1, "i_info commit=ab": 1, "s s=up": 1, "s s=down": 0}


def test_of_buckets_those_that_all_processes_have_are_exact() -> None:
    processes = [[histogram({"1": 1, "5": 2, "+Inf": 3}, 9)], [histogram({"1": 4, "2": 5, "+Inf": 6}, 9)]]
    merged = samples(Merger([]).merged([*processes, [counter("c", x=1)]]))
    assert {name: value for name, value in merged.items() if "bucket" in name} == {
        "h_bucket a=x le=1": 5,
        "h_bucket a=x le=+Inf": 9,
    }
    assert merged["h_count a=x"] == 9


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (gauge("c", 1), "it is a counter in one process and a gauge in another"),
        (gauge("c_total", 1), "the name 'c_total' belongs to c"),
        (Family("c", "counter", "", [Sample("_total", {"b": "x"}, 1)]), "it has other labels in one process"),
        (gauge("ours", 1), "belongs to the service's own metrics"),
        (Family("our", "summary", "", [Sample("_count", {}, 1)]), "'our_count' belongs to the service's own metrics"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said_once(
    log: pytest.LogCaptureFixture, second: Family, complaint: str
) -> None:
    merger = Merger(["ours", "our_count"])
    for _ in range(3):
        assert samples(merger.merged([[counter("c", x=1)], [second, gauge("g", 2)]])) == {"c_total a=x": 1, "g": 2}
    (said,) = log.messages
    assert complaint in said


def test_what_the_dead_leave_is_bounded(log: pytest.LogCaptureFixture) -> None:
    merger = Merger([])
    many = [Sample("_total", {"a": str(number)}, 1) for number in range(MOST_KEPT)]
    merger.fold_exited([Family("c", "counter", "", many)])
    merger.fold_exited([counter("c", new=1)])
    merger.fold_exited([counter("c", newer=1)])
    assert len(samples(merger.merged([]))) == MOST_KEPT
    assert len(log.messages) == 1


names = st.sampled_from(["a", "a_total", "a_count", "a_sum", "a_bucket", "b", "b_created"])
families = st.one_of(
    st.builds(lambda name, value: counter(name, **{value: 1}), names, st.text(max_size=3)),
    st.builds(gauge, names, st.floats()),
    st.builds(lambda name, text: Family(name, "summary", text, [Sample("_count", {}, 1)]), names, st.text()),
    st.builds(lambda name: Family(name, "histogram", "", [Sample("_bucket", {"le": "+Inf"}, 1)]), names),
)


@given(st.lists(st.lists(families, max_size=4), max_size=4))
def test_whatever_processes_say_the_page_can_be_read(processes: list[list[Family]]) -> None:
    merger = Merger(["b_count"])
    for families in processes[:2]:
        merger.fold_exited(families)

    class Page:
        def collect(self) -> list[Metric]:
            return [as_metric(family) for family in merger.merged(processes)]

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page())  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in read]
    assert len(keys) == len(set(keys)) == text.count("\n") - text.count("# ")
