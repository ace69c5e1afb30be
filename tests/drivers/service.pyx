"""Health as a Python object, for tests and benchmarks: no socket and no clock."""

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
    health_slot,
    health_stalled,
)


cdef class HealthWatch:
    """The health of a service's stages, for tests of the C functions in service.pyx.

    Args:
        patience: the limit of each stage, in ns.
        stages: of each slot, the index of its stage.
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
            table[i].limit = ns
        health_init(&self.health, watches, len(stages), table, len(patience))

    def __dealloc__(self):
        free(self.health.watches)
        free(self.health.stages)

    def look(self, uint64_t now, list slots):
        """(index of the first stage without a ready slot, of the first that is stalled), each None if there is none.

        `slots`: of each slot (ready, busy_since in ns or None for idle, incarnation, taken, answered).
        """
        cdef Progress progress
        cdef uint32_t slot
        health_begin(&self.health)
        for slot, (ready, busy_since, incarnation, taken, answered) in enumerate(slots):
            progress = Progress(incarnation=incarnation, taken=taken, answered=answered)
            health_slot(&self.health, slot, self.stages[slot], ready, HEALTH_IDLE if busy_since is None else busy_since,
                        &progress, now)
        cdef uint32_t lacking = health_lacking(&self.health)
        cdef uint32_t stalled = health_stalled(&self.health)
        return (None if lacking == HEALTH_ALL_WELL else lacking, None if stalled == HEALTH_ALL_WELL else stalled)
