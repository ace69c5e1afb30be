"""Steps that the tests of the batcher share: a stage, arrivals, dispatches and answers at given times (ns)."""

from tests.drivers.batcher import Scheduler

US = 1_000
MS = 1_000_000
FREE, NEW, QUEUED, DISPATCHED = range(4)
Batch = tuple[int, list[tuple[int, int]]]


def scheduler(max_batch_size: int = 1, max_wait_ns: int = 0, slots: int = 1, **options: int) -> Scheduler:
    """One stage whose slots are up."""
    made = Scheduler([(max_batch_size, max_wait_ns, slots)], **options)
    for slot in range(slots):
        made.slot_up(slot)
    return made


def arrive(s: Scheduler, count: int, now: int = 0, stage: int = 0) -> list[int]:
    entries = []
    for _ in range(count):
        entry = s.new()
        assert entry is not None
        s.enqueue(entry, stage, now)
        entries.append(entry)
    return entries


def dispatch(s: Scheduler, now: int, stage: int = 0) -> Batch:
    batch = s.next_batch(stage, now)
    assert batch is not None
    return batch


def entries_of(batch: Batch) -> list[int]:
    return [entry for entry, _ in batch[1]]


def start(s: Scheduler, batch: Batch) -> None:
    for entry, sequence in batch[1]:
        assert s.start(entry, sequence)


def finish(s: Scheduler, batch: Batch, now: int) -> int:
    """The slot answers all tasks of a batch; the duration that the last one reports."""
    slot, tasks = batch
    reported = [s.complete(slot, entry, sequence, now) for entry, sequence in tasks]
    assert reported[:-1] == [0] * (len(tasks) - 1)
    for entry, _ in tasks:
        s.free(entry)
    return reported[-1]


def run(s: Scheduler, took: int, now: int, times: int = 1) -> int:
    """`times` batches of one task, each dispatched to an idle slot, which answers `took` later; the time after."""
    for _ in range(times):
        arrive(s, 1, now)
        batch = dispatch(s, now)
        start(s, batch)
        now += took
        assert finish(s, batch, now) == took
    return now


def run_batch(s: Scheduler, size: int, took: int, now: int) -> int:
    arrive(s, size, now)
    batch = dispatch(s, now)
    assert len(batch[1]) == size
    start(s, batch)
    assert finish(s, batch, now + took) == took
    return now + took
