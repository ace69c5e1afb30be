"""Health, as Python objects: what tests and benchmarks drive, with no socket and no clock."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from mosec_cy._engine.service cimport (
    HEALTH_ALL_WELL,
    HEALTH_IDLE,
    Health,
    Progress,
    StageHealth,
    ProgressWatch,
    health_begin,
    health_init,
    health_lacking,
    health_row,
    health_stalled,
)


cdef class HealthWatch:
    """The same structs as a Python object, for tests.

    Args:
        patience: of each stage, in ns.
        stages: of each row, the index of its stage.
    """

    cdef Health health
    cdef list stages

    def __cinit__(self, list patience, list stages):
        cdef ProgressWatch *watches = <ProgressWatch *>calloc(max(len(stages), 1), sizeof(ProgressWatch))
        cdef StageHealth *table = <StageHealth *>calloc(max(len(patience), 1), sizeof(StageHealth))
        self.stages = stages
        if watches == NULL or table == NULL:
            free(watches)
            free(table)
            raise MemoryError("health")
        for i, ns in enumerate(patience):
            table[i].patience = ns
        health_init(&self.health, watches, len(stages), table, len(patience))

    def __dealloc__(self):
        free(self.health.watches)
        free(self.health.stages)

    def look(self, uint64_t now, list rows):
        """(index of the first stage that lacks a ready row, of the first that is stalled), each None if there is none.

        `rows`: of each row (ready, busy_since in ns or None for idle, incarnation, taken, answered).
        """
        cdef Progress progress
        cdef uint32_t row
        health_begin(&self.health)
        for row, (ready, busy_since, incarnation, taken, answered) in enumerate(rows):
            progress = Progress(incarnation=incarnation, taken=taken, answered=answered)
            health_row(&self.health, row, self.stages[row], ready, HEALTH_IDLE if busy_since is None else busy_since,
                       &progress, now)
        cdef uint32_t lacking = health_lacking(&self.health)
        cdef uint32_t stalled = health_stalled(&self.health)
        return (None if lacking == HEALTH_ALL_WELL else lacking, None if stalled == HEALTH_ALL_WELL else stalled)
