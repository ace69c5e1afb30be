"""The batcher against a model: any interleaving of arrivals, time, slots that start, answer, stall and die.

The model keeps where each task is and a ring of descriptors for each slot. It does not predict the policy; it checks
that each decision is one that the rules allow, and that none that they demand is missing.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.drivers.batcher import Scheduler
from tests.fuzz.batcher_model import RING, ModelSlot, ModelTask

RECLAIM_NS = MAX_BATCH_NS = 1_000_000
NEW, QUEUED, DISPATCHED = 1, 2, 3
RETRY = 2
SLOTS = (2, 1, 3)
STAGES = st.tuples(st.integers(1, 4), st.sampled_from([0, 50_000, 3_000_000]))
STEPS = st.sampled_from([1, 700, 9_000, 80_000, 400_000, 1_000_000, 1_000_001, 20_000_000])


class BatcherMachine(RuleBasedStateMachine):
    @initialize(stages=st.tuples(STAGES, STAGES, STAGES), now=st.integers(0, 10**15))
    def begin(self, stages: tuple[tuple[int, int], ...], now: int) -> None:
        self.stages = [(size, wait, slots) for (size, wait), slots in zip(stages, SLOTS, strict=True)]
        self.s = Scheduler(self.stages, max_tasks=24, ring_capacity=RING, retry=RETRY)
        self.slots = [ModelSlot(stage) for stage, count in enumerate(SLOTS) for _ in range(count)]
        for slot in range(len(self.slots)):
            self.s.slot_up(slot)
        self.now, self.turns, self.dispatches = now, 0, 0
        self.new: dict[int, ModelTask] = {}
        self.queues: list[list[int]] = [[] for _ in self.stages]
        self.dispatched: dict[int, ModelTask] = {}
        self.queued: dict[int, ModelTask] = {}

    # What clients do.

    @rule(stage=st.integers(0, 2), count=st.integers(1, 6))
    def arrive(self, stage: int, count: int) -> None:
        for _ in range(count):
            entry = self.s.new()
            assert (entry is None) == (len(self.new) + len(self.queued) + len(self.dispatched) == 24)
            if entry is not None:
                self.new[entry] = ModelTask(self.s.id(entry))
                self.enqueue(entry, stage)

    @precondition(lambda self: self.new)
    @rule(stage=st.integers(0, 2), data=st.data())
    def go_on(self, stage: int, data: st.DataObject) -> None:
        self.enqueue(data.draw(st.sampled_from(sorted(self.new))), stage)

    def enqueue(self, entry: int, stage: int) -> None:
        task = self.new.pop(entry)
        self.turns += 1
        task.turn, task.stage, task.queued_at, task.started, task.cancelled = self.turns, stage, self.now, False, False
        task.tries = 0
        self.s.enqueue(entry, stage, self.now)
        self.queued[entry] = task
        self.queues[stage].append(entry)

    @precondition(lambda self: self.new)
    @rule(data=st.data())
    def answered(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(sorted(self.new)))
        task = self.new.pop(entry)
        self.s.free(entry)
        assert self.s.find(task.id) is None

    @precondition(lambda self: self.queued or self.dispatched)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(sorted(self.queued | self.dispatched)))
        out = self.s.withdraw(entry)
        if entry in self.queued:
            assert out
            task = self.queued.pop(entry)
            self.queues[task.stage].remove(entry)
        else:
            task = self.dispatched[entry]
            assert out == (not task.started)
            if task.started:
                task.cancelled = True
                return
            del self.dispatched[entry]
        self.new[entry] = task

    # What core does.

    @rule(step=STEPS)
    def pass_time(self, step: int) -> None:
        self.now += step

    @rule()
    def pass_time_to_deadline(self) -> None:
        self.now = max(self.now, self.s.deadline(self.now) or 0)

    @rule(slot=st.integers(0, 5))
    def look_at_ring(self, slot: int) -> None:
        model = self.slots[slot]
        if model.up:
            model.known_room = RING - len(model.ring)
            self.s.set_room(slot, model.known_room)

    @rule()
    def dispatch(self) -> None:
        self.reclaim()
        for stage in range(3):
            while batch := self.s.next_batch(stage, self.now):
                self.batch_goes_out(stage, *batch)
            self.nothing_was_missed(stage)
        self.unstarted_are_looked_at()
        deadline = self.s.deadline(self.now)
        assert deadline is None or deadline > self.now

    def open_idle(self, stage: int, size: int, besides: int = -1) -> list[int]:
        """Idle slots that have a claim to a batch of that size."""
        return [
            slot
            for slot, model in enumerate(self.slots)
            if (model.stage == stage and model.up and slot != besides and not self.s.ring(slot))
            and (model.known_room >= size and not (model.late and model.known_room < RING))
        ]

    def reclaim(self) -> None:
        count = self.s.reclaim(self.now)
        back = [entry for entry in self.dispatched if self.s.task(entry)["state"] == QUEUED]
        assert len(back) == count
        for entry in back:
            task = self.dispatched.pop(entry)
            assert not task.started and SLOTS[task.stage] > 1
            assert self.now - task.dispatched_at >= RECLAIM_NS
            slot = self.slots[task.slot]
            slot.late, slot.known_room = True, min(slot.known_room, RING - 1)
            self.requeue(entry, task)
        for task in self.dispatched.values():
            if not task.started and self.now - task.dispatched_at >= RECLAIM_NS:
                assert not self.open_idle(task.stage, 1, besides=task.slot), "an idle slot could have had it"

    def requeue(self, entry: int, task: ModelTask) -> None:
        self.queued[entry] = task
        self.queues[task.stage].append(entry)
        self.queues[task.stage].sort(key=lambda other: self.queued[other].turn)

    def batch_goes_out(self, stage: int, slot: int, tasks: list[tuple[int, int]]) -> None:
        model = self.slots[slot]
        queue = self.queues[stage]
        idle = self.open_idle(stage, len(tasks))
        assert (model.stage, model.up) == (stage, True)
        assert [entry for entry, _ in tasks] == queue[: len(tasks)]
        assert len(tasks) == self.head_batch(stage)
        assert self.is_closed(stage)
        assert len(model.ring) + len(tasks) <= RING
        if self.s.slot(slot)["batches"] > 1:
            assert not idle
            assert self.s.slot(slot)["batch_ns"] <= MAX_BATCH_NS
            assert not model.late or model.known_room == RING
        elif idle:
            assert (model.turn, slot) < min((self.slots[other].turn, other) for other in idle), "used more recently"
        model.turn = self.dispatches = self.dispatches + 1
        del queue[: len(tasks)]
        model.known_room -= len(tasks)
        for entry, sequence in tasks:
            task = self.dispatched[entry] = self.queued.pop(entry)
            assert sequence > task.sequence
            task.slot, task.sequence, task.dispatched_at = slot, sequence, self.now
            model.ring.append((entry, sequence))

    def head_batch(self, stage: int) -> int:
        """Tasks of the next batch: one under which a slot has died goes alone, and nobody joins others past it."""
        queue = self.queues[stage]
        if self.queued[queue[0]].tries:
            return 1
        lone = (i for i, entry in enumerate(queue) if self.queued[entry].tries)
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
        slots = [slot for slot, model in enumerate(self.slots) if model.stage == stage and model.up]
        idle = [self.slots[slot] for slot in slots if not self.s.ring(slot)]
        if self.is_closed(stage):
            assert all(model.known_room < self.head_batch(stage) for model in idle)
        if idle:
            assert self.s.deadline(self.now) is not None, "tasks and an idle slot, and nobody would look again"

    def unstarted_are_looked_at(self) -> None:
        """While another slot is idle, or may be once it has popped what is stale, core does not sleep for good."""
        for task in self.dispatched.values():
            others = (model for slot, model in enumerate(self.slots) if slot != task.slot and not self.s.ring(slot))
            if not task.started and any(model.stage == task.stage and model.up for model in others):
                assert self.slots[task.slot].up is False or self.s.deadline(self.now) is not None

    # What slots do.

    @rule(slot=st.integers(0, 5), count=st.integers(1, 4))
    def slot_starts(self, slot: int, count: int) -> None:
        model = self.slots[slot]
        for entry, sequence in model.ring[:count]:
            task = self.dispatched.get(entry)
            valid = task is not None and (task.slot, task.sequence, task.started) == (slot, sequence, False)
            assert self.s.start(entry, sequence) == valid
            if task is not None and valid:
                task.started = True
                model.running.append((entry, sequence))
        del model.ring[:count]

    @rule(slot=st.integers(0, 5), count=st.integers(1, 4), backwards=st.booleans())
    def slot_answers(self, slot: int, count: int, backwards: bool) -> None:
        model = self.slots[slot]
        answers = model.running[::-1][:count] if backwards else model.running[:count]
        for entry, sequence in answers:
            model.running.remove((entry, sequence))
            task = self.dispatched.pop(entry)
            assert self.s.cancelled(entry, sequence) == task.cancelled
            outstanding = self.s.slot(slot)["batches"]
            took = self.s.complete(slot, entry, sequence, self.now)
            assert took is not None
            assert (took > 0) == (self.s.slot(slot)["batches"] < outstanding)
            model.late = False
            self.new[entry] = task

    @rule(slot=st.integers(0, 8), entry=st.integers(0, 30), sequence=st.integers(0, 40))
    def slot_lies(self, slot: int, entry: int, sequence: int) -> None:
        task = self.dispatched.get(entry)
        if task is None or (task.slot, task.sequence) != (slot, sequence):
            assert not self.s.holds(slot, entry, sequence)
            assert self.s.complete(slot, entry, sequence, self.now) is None

    @rule(slot=st.integers(0, 5), dies=st.booleans(), retried=st.booleans())
    def slot_ends(self, slot: int, dies: bool, retried: bool) -> None:
        model = self.slots[slot]
        mine = {entry: task for entry, task in self.dispatched.items() if task.slot == slot}
        started = sorted(entry for entry, task in mine.items() if task.started)
        unstarted = [entry for entry, task in mine.items() if not task.started]
        if dies:
            assert sorted(self.s.slot_down(slot)) == started
            for entry in started:
                self.fail(entry, retried)
            self.slots[slot] = ModelSlot(model.stage, up=False, known_room=0)
        else:
            self.s.slot_drain(slot)
            model.up = False
        for entry in unstarted:
            self.requeue(entry, self.dispatched.pop(entry))

    def fail(self, entry: int, retried: bool) -> None:
        """A slot has died under it."""
        task = self.new[entry] = self.dispatched.pop(entry)
        task.tries += 1
        assert self.s.task(entry)["tries"] == task.tries
        if retried:
            assert self.s.retry(entry) == (task.tries <= RETRY)
            if task.tries <= RETRY:
                task.started = task.cancelled = False
                self.requeue(entry, self.new.pop(entry))

    @rule(slot=st.integers(0, 5))
    def slot_begins(self, slot: int) -> None:
        model = self.slots[slot]
        if not model.up and not model.running:
            self.dispatches += 1
            self.slots[slot] = ModelSlot(model.stage, turn=self.dispatches)
            self.s.slot_up(slot)

    @invariant()
    def each_task_is_in_one_place(self) -> None:
        for stage, queue in enumerate(self.queues):
            fields = self.s.stage(stage)
            running = [entry for entry, task in self.dispatched.items() if self.slots[task.slot].stage == stage]
            assert self.s.queue(stage) == queue
            assert (fields["waiting"], fields["running"]) == (len(queue), len(running))
            assert fields["lone"] == sum(self.queued[entry].tries > 0 for entry in queue)
        for slot in range(len(self.slots)):
            listed = self.s.ring(slot)
            assert sorted(listed) == sorted(entry for entry, task in self.dispatched.items() if task.slot == slot)
            assert self.s.slot(slot)["outstanding"] == len(listed)
            assert self.s.slot(slot)["batches"] == len({self.s.task(entry)["batch"] for entry in listed})
        for place, state in ((self.new, NEW), (self.queued, QUEUED), (self.dispatched, DISPATCHED)):
            for entry, task in place.items():
                assert self.s.task(entry)["state"] == state
                assert self.s.find(task.id) == entry

    def teardown(self) -> None:
        """Woken only by deadlines and answers, core brings every task that waits to its end."""
        if not hasattr(self, "s"):
            return
        for slot in range(len(self.slots)):
            self.slot_answers(slot, 24, False)
            self.slot_begins(slot)
        for _ in range(50):
            self.dispatch()
            for slot, model in enumerate(self.slots):
                if model.ring or model.running:
                    self.slot_starts(slot, RING)
                    self.look_at_ring(slot)
                    self.slot_answers(slot, 24, False)
            self.pass_time_to_deadline()
        assert not self.queued and not self.dispatched


BatcherMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBatcher = BatcherMachine.TestCase
