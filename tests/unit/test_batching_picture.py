"""The picture of docs/batching.md shows what the engine decides."""

from __future__ import annotations

from benchmarks import batching_picture as picture
from tests.drivers.batcher import Scheduler
from tests.unit.scheduling import MS, US, arrive, finish, start


def taught() -> tuple[Scheduler, int]:
    """After batches of 1 to 8 tasks, which take 2 ms and 0.1 ms a task and whose clients then ask again; and when."""
    s = Scheduler([(32, None, 1)], automatic=True)
    s.slot_up(0)
    now = 0
    for clients in [8, 5, 8, 2, 8, 7, 8] * 20:
        for _ in range(clients):
            arrive(s, 1, now)
            now += 20 * US
        while s.stage(0)["waiting"]:
            while (batch := s.next_batch(0, now)) is None:
                now = s.deadline(now)
            start(s, batch)
            now += 2 * MS + len(batch[1]) * 100 * US
            finish(s, batch, now)
            s.set_room(0, 64)
    return s, now


def test_the_picture_is_that_of_the_script() -> None:
    assert picture.PICTURE.read_text() == picture.svg(), "run `python benchmarks/batching_picture.py`"


def test_its_formula_is_the_engines() -> None:
    s, now = taught()
    held = []
    for waiting in range(1, 9):
        now += 20 * US
        arrive(s, 1, now)
        batch = s.next_batch(0, now)
        former = s.stage(0)["former"]
        time, back = former["time"], former["back"] + former["back_before"]
        gaps = former["gaps"][back.bit_length()]
        stage = picture.Stage(time["fixed"] / MS, time["slope"] / MS, former["arrivals"] / former["busy_ns"] * MS)
        shares = [count / gaps["total"] for count in gaps["counts"]]
        hold, _ = picture.best(list(picture.gains(stage, waiting, back, shares)))
        held.append(round(hold * MS))
        if batch is not None:
            break
        assert s.stage(0)["closes_at"] == former["event_at"] + held[-1]
    assert len(held) > 4
    assert held[-1] == 0
