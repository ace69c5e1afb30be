"""The record of a slot's progress as a Python object, for tests: no process and no clock."""

from mosec_cy._engine.dispatch cimport Progress, ProgressWatch as Watch, progress_lacks, progress_look
from mosec_cy._engine.linux cimport NEVER


cdef class ProgressWatch:
    """The record of one slot."""

    cdef Watch watch

    def __cinit__(self):
        self.watch.since = NEVER

    def look(self, now, since, batch=0, phase=0, began=0, taken=0, answered=0):
        """A look at `now` (ns) at a slot that has work since `since` (ns) at least; None: it has none."""
        cdef Progress progress = Progress(batch=batch, phase=phase, began=began, taken=taken, answered=answered)
        progress_look(&self.watch, &progress, NEVER if since is None else since, now)

    def lacks(self, limit, now):
        """Whether the last look found work and no progress for `limit` ns by `now`."""
        return progress_lacks(&self.watch, limit, now)
