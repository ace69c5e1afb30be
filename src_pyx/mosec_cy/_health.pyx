"""Whether stages have workers and whether these get on.

A stage is stalled when each of its rows that may work has had work for longer than the stage's patience without taking
or answering anything. A row with the same pulse and with work at two looks had work all the time between them, and did
nothing: tasks that came meanwhile would have been taken, or lie in its ring behind those that it has not taken.

So a stage without any row is not stalled (it is not ready: its models may take minutes to load), nor is one that is
overloaded: it gets on.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef inline bint _same(const Pulse *a, const Pulse *b) noexcept nogil:
    return a.incarnation == b.incarnation and a.taken == b.taken and a.answered == b.answered


cdef uint64_t _watch(Vigil *vigil, uint64_t busy_since, const Pulse *pulse, uint64_t now) noexcept nogil:
    # What the caller knows may be later than the truth: work that is withdrawn and handed out anew starts its clock
    # anew. Or earlier: who answers a batch one by one has had work all along, but has got on since the last look.
    if busy_since == HEALTH_IDLE or vigil.since == HEALTH_IDLE or not _same(&vigil.pulse, pulse):
        vigil.since = max(vigil.looked_at, busy_since)
    vigil.pulse = pulse[0]
    vigil.looked_at = now
    return vigil.since


cdef void health_init(Health *h, Vigil *vigils, uint32_t row_count, StageHealth *stages,
                      uint32_t stage_count) noexcept nogil:
    cdef uint32_t row
    h[0] = Health(vigils=vigils, stages=stages, row_count=row_count, stage_count=stage_count)
    for row in range(row_count):
        vigils[row].since = HEALTH_IDLE


cdef void health_begin(Health *h) noexcept nogil:
    cdef uint32_t stage
    for stage in range(h.stage_count):
        h.stages[stage].ready = h.stages[stage].watched = h.stages[stage].stuck = 0


cdef void health_row(Health *h, uint32_t row, uint32_t stage, bint ready, uint64_t busy_since, const Pulse *pulse,
                     uint64_t now) noexcept nogil:
    cdef StageHealth *of = &h.stages[stage]
    cdef uint64_t since = _watch(&h.vigils[row], busy_since, pulse, now)
    of.ready += ready
    of.watched += ready or since != HEALTH_IDLE
    of.stuck += since <= now and now - since > of.patience


cdef uint32_t health_lacking(const Health *h) noexcept nogil:
    cdef uint32_t stage
    for stage in range(h.stage_count):
        if h.stages[stage].ready == 0:
            return stage
    return HEALTH_ALL_WELL


cdef uint32_t health_stalled(const Health *h) noexcept nogil:
    cdef uint32_t stage
    for stage in range(h.stage_count):
        if h.stages[stage].stuck and h.stages[stage].stuck == h.stages[stage].watched:
            return stage
    return HEALTH_ALL_WELL


cdef class HealthWatch:
    """The same structs as a Python object, for tests.

    Args:
        patience: of each stage, in ns.
        stages: of each row, the index of its stage.
    """

    cdef Health health
    cdef list stages

    def __cinit__(self, list patience, list stages):
        cdef Vigil *vigils = <Vigil *>calloc(max(len(stages), 1), sizeof(Vigil))
        cdef StageHealth *table = <StageHealth *>calloc(max(len(patience), 1), sizeof(StageHealth))
        self.stages = stages
        if vigils == NULL or table == NULL:
            free(vigils)
            free(table)
            raise MemoryError("health")
        for i, ns in enumerate(patience):
            table[i].patience = ns
        health_init(&self.health, vigils, len(stages), table, len(patience))

    def __dealloc__(self):
        free(self.health.vigils)
        free(self.health.stages)

    def look(self, uint64_t now, list rows):
        """(index of the first stage that lacks a ready row, of the first that is stalled), each None if there is none.

        `rows`: of each row (ready, busy_since in ns or None for idle, incarnation, taken, answered).
        """
        cdef Pulse pulse
        cdef uint32_t row
        health_begin(&self.health)
        for row, (ready, busy_since, incarnation, taken, answered) in enumerate(rows):
            pulse = Pulse(incarnation=incarnation, taken=taken, answered=answered)
            health_row(&self.health, row, self.stages[row], ready, HEALTH_IDLE if busy_since is None else busy_since,
                       &pulse, now)
        cdef uint32_t lacking = health_lacking(&self.health)
        cdef uint32_t stalled = health_stalled(&self.health)
        return (None if lacking == HEALTH_ALL_WELL else lacking, None if stalled == HEALTH_ALL_WELL else stalled)
