"""What a process has recorded with `prometheus_client` in its default registry, as bytes for the master."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from mosec_cy.log import get_logger

LARGEST = 2 << 20  # bytes of one snapshot: some 30 000 samples, and half a second of a busy master
ACCUMULATING = frozenset({"counter", "histogram", "summary"})

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_bucket", "_sum", "_count"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "info": ("_info",),
    "stateset": ("",),
    "unknown": ("",),
}
_COLLECTORS = ("PROCESS_COLLECTOR", "PLATFORM_COLLECTOR", "GC_COLLECTOR")  # of what is known of any process
_NEEDED = ("REGISTRY", *_COLLECTORS)
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One number of a family; its name is the family's with `suffix`."""

    suffix: str
    labels: dict[str, str]
    value: float

    @property
    def key(self) -> _Key:
        return self.suffix, tuple(sorted(self.labels.items()))


class Family(msgspec.Struct, array_like=True, gc=False):
    """A metric as the text format knows it: name, type, help and samples."""

    name: str
    kind: Literal["counter", "gauge", "summary", "histogram", "gaugehistogram", "info", "stateset", "unknown"]
    help: str
    samples: list[Sample]


_decoder = msgspec.msgpack.Decoder(list[Family])


def decode(body: object) -> list[Family]:
    """Read a snapshot that another process has sent.

    Raises ValueError for anything else than the result of `Recorder.encoded`.
    """
    if not isinstance(body, bytes) or len(body) > LARGEST:
        raise ValueError(f"a snapshot of metrics is at most {LARGEST} bytes")
    try:
        families = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no snapshot of metrics: {error}") from None
    labels: set[str] = set()
    for family in families:
        labels.update(*(sample.labels for sample in family.samples))
        if any(sample.suffix not in _SUFFIXES[family.kind] for sample in family.samples):
            raise ValueError(f"the {family.kind} {family.name!r} has a sample that no {family.kind} has")
        if not _NAME.match(family.name):
            raise ValueError(f"no snapshot of metrics: {family.name!r} is no name of a metric")
    for name in labels:
        if not _LABEL_NAME.match(name):
            raise ValueError(f"no snapshot of metrics: {name!r} is no name of a label")
    return families


class Recorder:
    """Reads the default registry of this process.

    A forked process starts with what its parent had recorded, and the parent reports that: a Recorder leaves out what
    was there when it was made, if `forked`.
    """

    def __init__(self, forked: bool = False) -> None:
        self._reported: set[str] = set()
        self._inherited: dict[tuple[str, _Key], float] = {}
        if forked:
            self._inherited = {
                (family.name, sample.key): sample.value for family in self.families() for sample in family.samples
            }

    def encoded(self) -> bytes:
        """The families as bytes; none of them, and an error in the log, where they are more than `LARGEST`."""
        families = self.families()
        body = msgspec.msgpack.encode(families)
        if len(body) <= LARGEST:
            return body
        count = sum(len(family.samples) for family in families)
        self._report(
            f"what this process recorded is left out of /metrics: {count} samples in {len(body)} bytes, "
            f"more than {LARGEST}. Use labels with fewer values"
        )
        return msgspec.msgpack.encode([])

    def families(self) -> list[Family]:
        """All that user code has recorded, without what `prometheus_client` says of any process by itself."""
        client: Any = sys.modules.get("prometheus_client")
        # While it is imported, by another thread, it has not all of its names. Nothing can have been recorded then.
        if not all(hasattr(client, name) for name in _NEEDED):
            return []
        own = _names_of_any_process(client)
        families: list[Family] = []
        try:
            for metric in client.REGISTRY.collect():
                if metric.name not in own:
                    families += self._family(metric)
        except (Exception, SystemExit) as error:  # of a collector of the user's
            self._report(f"/metrics lacks what a collector of this process should have said: {error!r}")
        return families

    def _family(self, metric: Any) -> list[Family]:
        """The metric; nothing where the text format or a sum has no room for it."""
        suffixes = _SUFFIXES.get(metric.type)
        samples: list[Sample] = []
        for sample in metric.samples:
            suffix = sample.name.removeprefix(metric.name)
            if suffix == "_created" or "quantile" in sample.labels:  # neither means anything in a sum
                continue
            if suffixes is None or metric.name + suffix != sample.name or suffix not in suffixes or not _legal(sample):
                self._report(f"/metrics lacks {metric.name!r}: {sample.name!r} is no name of a {metric.type}'s sample")
                return []
            labels = {name: _text(value) for name, value in sample.labels.items()}
            samples.append(Sample(suffix, labels, float(sample.value)))
        if self._inherited:
            samples = self._without_inherited(metric, samples)
        return [Family(metric.name, metric.type, _text(metric.documentation), samples)]

    def _without_inherited(self, metric: Any, samples: Iterable[Sample]) -> list[Sample]:
        """Counts less those of the parent; of the rest only what has another value than in the parent."""
        own = []
        for sample in samples:
            inherited = self._inherited.get((metric.name, sample.key))
            if inherited is None:
                own.append(sample)
            elif metric.type in ACCUMULATING:
                own.append(Sample(sample.suffix, sample.labels, sample.value - inherited))
            elif sample.value != inherited:
                own.append(sample)
        return own

    def _report(self, complaint: str) -> None:
        subject = complaint.partition(":")[0]
        if subject not in self._reported:
            self._reported.add(subject)
            get_logger().error("%s", complaint)


def _legal(sample: Any) -> bool:
    return bool(_NAME.match(sample.name)) and all(map(_LABEL_NAME.match, sample.labels))


def _text(value: object) -> str:
    """What UTF-8 can say of it: collectors of the user's give anything."""
    return str(value).encode("utf-8", "replace").decode()


def _names_of_any_process(client: Any) -> set[str]:
    return {metric.name for name in _COLLECTORS for metric in getattr(client, name).collect()}
