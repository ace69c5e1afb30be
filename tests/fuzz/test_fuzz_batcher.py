"""The batcher against a model: any interleaving of arrivals, time, rows that start, answer, stall and die.

The model keeps where each task is and a ring of descriptors for each row. It does not predict the policy; it checks
that each decision is one that the rules allow, and that none that they demand is missing.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.drivers.batcher import Scheduler
from tests.fuzz.batcher_model import RING, ModelRow, ModelTask

TAKE_BACK_NS = MAX_BATCH_NS = 1_000_000
NEW, QUEUED, HANDED = 1, 2, 3
RETRY = 2
ROWS = (2, 1, 3)
STAGES = st.tuples(st.integers(1, 4), st.sampled_from([0, 50_000, 3_000_000]))
STEPS = st.sampled_from([1, 700, 9_000, 80_000, 400_000, 1_000_000, 1_000_001, 20_000_000])


class BatcherMachine(RuleBasedStateMachine):
    @initialize(stages=st.tuples(STAGES, STAGES, STAGES), now=st.integers(0, 10**15))
    def begin(self, stages: tuple[tuple[int, int], ...], now: int) -> None:
        self.stages = [(size, wait, rows) for (size, wait), rows in zip(stages, ROWS, strict=True)]
        self.s = Scheduler(self.stages, slots=24, ring_capacity=RING, retry=RETRY)
        self.rows = [ModelRow(stage) for stage, count in enumerate(ROWS) for _ in range(count)]
        for row in range(len(self.rows)):
            self.s.row_up(row)
        self.now, self.turns, self.hand_outs = now, 0, 0
        self.new: dict[int, ModelTask] = {}
        self.queues: list[list[int]] = [[] for _ in self.stages]
        self.handed: dict[int, ModelTask] = {}
        self.queued: dict[int, ModelTask] = {}

    # What clients do.

    @rule(stage=st.integers(0, 2), count=st.integers(1, 6))
    def arrive(self, stage: int, count: int) -> None:
        for _ in range(count):
            slot = self.s.new()
            assert (slot is None) == (len(self.new) + len(self.queued) + len(self.handed) == 24)
            if slot is not None:
                self.new[slot] = ModelTask(self.s.id(slot))
                self.enqueue(slot, stage)

    @precondition(lambda self: self.new)
    @rule(stage=st.integers(0, 2), data=st.data())
    def go_on(self, stage: int, data: st.DataObject) -> None:
        self.enqueue(data.draw(st.sampled_from(sorted(self.new))), stage)

    def enqueue(self, slot: int, stage: int) -> None:
        task = self.new.pop(slot)
        self.turns += 1
        task.turn, task.stage, task.queued_at, task.started, task.cancelled = self.turns, stage, self.now, False, False
        task.tries = 0
        self.s.enqueue(slot, stage, self.now)
        self.queued[slot] = task
        self.queues[stage].append(slot)

    @precondition(lambda self: self.new)
    @rule(data=st.data())
    def answered(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.new)))
        task = self.new.pop(slot)
        self.s.free(slot)
        assert self.s.find(task.id) is None

    @precondition(lambda self: self.queued or self.handed)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.queued | self.handed)))
        out = self.s.withdraw(slot)
        if slot in self.queued:
            assert out
            task = self.queued.pop(slot)
            self.queues[task.stage].remove(slot)
        else:
            task = self.handed[slot]
            assert out == (not task.started)
            if task.started:
                task.cancelled = True
                return
            del self.handed[slot]
        self.new[slot] = task

    # What core does.

    @rule(step=STEPS)
    def pass_time(self, step: int) -> None:
        self.now += step

    @rule()
    def pass_time_to_deadline(self) -> None:
        self.now = max(self.now, self.s.deadline(self.now) or 0)

    @rule(row=st.integers(0, 5))
    def look_at_ring(self, row: int) -> None:
        model = self.rows[row]
        if model.up:
            model.known_room = RING - len(model.ring)
            self.s.set_room(row, model.known_room)

    @rule()
    def dispatch(self) -> None:
        self.take_back()
        for stage in range(3):
            while batch := self.s.next_batch(stage, self.now):
                self.hand_out(stage, *batch)
            self.nothing_was_missed(stage)
        self.unstarted_are_looked_at()
        deadline = self.s.deadline(self.now)
        assert deadline is None or deadline > self.now

    def open_idle(self, stage: int, size: int, besides: int = -1) -> list[int]:
        """Idle rows that have a claim to a batch of that size."""
        return [
            row
            for row, model in enumerate(self.rows)
            if (model.stage == stage and model.up and row != besides and not self.s.ring(row))
            and (model.known_room >= size and not (model.late and model.known_room < RING))
        ]

    def take_back(self) -> None:
        count = self.s.take_back(self.now)
        back = [slot for slot in self.handed if self.s.task(slot)["state"] == QUEUED]
        assert len(back) == count
        for slot in back:
            task = self.handed.pop(slot)
            assert not task.started and ROWS[task.stage] > 1
            assert self.now - task.handed_at >= TAKE_BACK_NS
            row = self.rows[task.row]
            row.late, row.known_room = True, min(row.known_room, RING - 1)
            self.requeue(slot, task)
        for task in self.handed.values():
            if not task.started and self.now - task.handed_at >= TAKE_BACK_NS:
                assert not self.open_idle(task.stage, 1, besides=task.row), "an idle row could have had it"

    def requeue(self, slot: int, task: ModelTask) -> None:
        self.queued[slot] = task
        self.queues[task.stage].append(slot)
        self.queues[task.stage].sort(key=lambda other: self.queued[other].turn)

    def hand_out(self, stage: int, row: int, tasks: list[tuple[int, int]]) -> None:
        model = self.rows[row]
        queue = self.queues[stage]
        idle = self.open_idle(stage, len(tasks))
        assert (model.stage, model.up) == (stage, True)
        assert [slot for slot, _ in tasks] == queue[: len(tasks)]
        assert len(tasks) == self.head_batch(stage)
        assert self.is_closed(stage)
        assert len(model.ring) + len(tasks) <= RING
        if self.s.row(row)["batches"] > 1:
            assert not idle
            assert self.s.row(row)["batch_ns"] <= MAX_BATCH_NS
            assert not model.late or model.known_room == RING
        elif idle:
            assert (model.turn, row) < min((self.rows[other].turn, other) for other in idle), "used more recently"
        model.turn = self.hand_outs = self.hand_outs + 1
        del queue[: len(tasks)]
        model.known_room -= len(tasks)
        for slot, sequence in tasks:
            task = self.handed[slot] = self.queued.pop(slot)
            assert sequence > task.sequence
            task.row, task.sequence, task.handed_at = row, sequence, self.now
            model.ring.append((slot, sequence))

    def head_batch(self, stage: int) -> int:
        """Tasks of the next batch: one under which a row has died goes alone, and nobody joins others past it."""
        queue = self.queues[stage]
        if self.queued[queue[0]].tries:
            return 1
        lone = (i for i, slot in enumerate(queue) if self.queued[slot].tries)
        return min(self.stages[stage][0], next(lone, len(queue)))

    def is_closed(self, stage: int) -> bool:
        size, wait, _ = self.stages[stage]
        queue = self.queues[stage]
        full = self.head_batch(stage) in (size, *range(len(queue)))  # or others wait behind it that cannot join
        alone = self.queued[queue[0]].tries > 0
        return full or alone or self.now - self.queued[queue[0]].queued_at >= wait

    def nothing_was_missed(self, stage: int) -> None:
        if not self.queues[stage]:
            return
        rows = [row for row, model in enumerate(self.rows) if model.stage == stage and model.up]
        idle = [self.rows[row] for row in rows if not self.s.ring(row)]
        if self.is_closed(stage):
            assert all(model.known_room < self.head_batch(stage) for model in idle)
        if idle:
            assert self.s.deadline(self.now) is not None, "tasks and an idle row, and nobody would look again"

    def unstarted_are_looked_at(self) -> None:
        """While another row is idle, or may be once it has popped what is stale, core does not sleep for good."""
        for task in self.handed.values():
            others = (model for row, model in enumerate(self.rows) if row != task.row and not self.s.ring(row))
            if not task.started and any(model.stage == task.stage and model.up for model in others):
                assert self.rows[task.row].up is False or self.s.deadline(self.now) is not None

    # What rows do.

    @rule(row=st.integers(0, 5), count=st.integers(1, 4))
    def row_starts(self, row: int, count: int) -> None:
        model = self.rows[row]
        for slot, sequence in model.ring[:count]:
            task = self.handed.get(slot)
            valid = task is not None and (task.row, task.sequence, task.started) == (row, sequence, False)
            assert self.s.start(slot, sequence) == valid
            if task is not None and valid:
                task.started = True
                model.running.append((slot, sequence))
        del model.ring[:count]

    @rule(row=st.integers(0, 5), count=st.integers(1, 4), backwards=st.booleans())
    def row_answers(self, row: int, count: int, backwards: bool) -> None:
        model = self.rows[row]
        answers = model.running[::-1][:count] if backwards else model.running[:count]
        for slot, sequence in answers:
            model.running.remove((slot, sequence))
            task = self.handed.pop(slot)
            assert self.s.cancelled(slot, sequence) == task.cancelled
            outstanding = self.s.row(row)["batches"]
            took = self.s.complete(row, slot, sequence, self.now)
            assert took is not None
            assert (took > 0) == (self.s.row(row)["batches"] < outstanding)
            model.late = False
            self.new[slot] = task

    @rule(row=st.integers(0, 8), slot=st.integers(0, 30), sequence=st.integers(0, 40))
    def row_lies(self, row: int, slot: int, sequence: int) -> None:
        task = self.handed.get(slot)
        if task is None or (task.row, task.sequence) != (row, sequence):
            assert not self.s.holds(row, slot, sequence)
            assert self.s.complete(row, slot, sequence, self.now) is None

    @rule(row=st.integers(0, 5), dies=st.booleans(), retried=st.booleans())
    def row_ends(self, row: int, dies: bool, retried: bool) -> None:
        model = self.rows[row]
        mine = {slot: task for slot, task in self.handed.items() if task.row == row}
        started = sorted(slot for slot, task in mine.items() if task.started)
        unstarted = [slot for slot, task in mine.items() if not task.started]
        if dies:
            assert sorted(self.s.row_down(row)) == started
            for slot in started:
                self.fail(slot, retried)
            self.rows[row] = ModelRow(model.stage, up=False, known_room=0)
        else:
            self.s.row_drain(row)
            model.up = False
        for slot in unstarted:
            self.requeue(slot, self.handed.pop(slot))

    def fail(self, slot: int, retried: bool) -> None:
        """A row has died under it."""
        task = self.new[slot] = self.handed.pop(slot)
        task.tries += 1
        assert self.s.task(slot)["tries"] == task.tries
        if retried:
            assert self.s.retry(slot) == (task.tries <= RETRY)
            if task.tries <= RETRY:
                task.started = task.cancelled = False
                self.requeue(slot, self.new.pop(slot))

    @rule(row=st.integers(0, 5))
    def row_begins(self, row: int) -> None:
        model = self.rows[row]
        if not model.up and not model.running:
            self.hand_outs += 1
            self.rows[row] = ModelRow(model.stage, turn=self.hand_outs)
            self.s.row_up(row)

    @invariant()
    def each_task_is_in_one_place(self) -> None:
        for stage, queue in enumerate(self.queues):
            fields = self.s.stage(stage)
            running = [slot for slot, task in self.handed.items() if self.rows[task.row].stage == stage]
            assert self.s.queue(stage) == queue
            assert (fields["waiting"], fields["running"]) == (len(queue), len(running))
            assert fields["lone"] == sum(self.queued[slot].tries > 0 for slot in queue)
        for row in range(len(self.rows)):
            listed = self.s.ring(row)
            assert sorted(listed) == sorted(slot for slot, task in self.handed.items() if task.row == row)
            assert self.s.row(row)["outstanding"] == len(listed)
            assert self.s.row(row)["batches"] == len({self.s.task(slot)["batch"] for slot in listed})
        for place, state in ((self.new, NEW), (self.queued, QUEUED), (self.handed, HANDED)):
            for slot, task in place.items():
                assert self.s.task(slot)["state"] == state
                assert self.s.find(task.id) == slot

    def teardown(self) -> None:
        """Woken only by deadlines and answers, core brings every task that waits to its end."""
        if not hasattr(self, "s"):
            return
        for row in range(len(self.rows)):
            self.row_answers(row, 24, False)
            self.row_begins(row)
        for _ in range(50):
            self.dispatch()
            for row, model in enumerate(self.rows):
                if model.ring or model.running:
                    self.row_starts(row, RING)
                    self.look_at_ring(row)
                    self.row_answers(row, 24, False)
            self.pass_time_to_deadline()
        assert not self.queued and not self.handed


BatcherMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBatcher = BatcherMachine.TestCase
