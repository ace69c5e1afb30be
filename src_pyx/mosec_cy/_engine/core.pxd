# core

from libc.stdint cimport uint32_t, uint64_t

from mosec_cy._engine.connection cimport Loop
from mosec_cy._engine.service cimport Service
from mosec_cy._engine.http1 cimport Http1Io

# ---- the loop ------------------------------------------------------------------------------------
# The core's loop: events to connections and service, orders of the master, accepting.

cdef enum:
    MAX_LISTENERS = 16

ctypedef struct Core:
    Loop loop
    Http1Io io
    Service service
    int control
    int[MAX_LISTENERS] listeners
    uint32_t listener_count
    bint accepting
    uint64_t resume_at                 # ns: when to accept again at the latest; 0: accept is not paused
    uint32_t paused_open               # connections when it was paused
    uint64_t stop_at                   # ns; shutting down: when at the latest
    bint leaving                       # nobody waits for an answer any more, and nobody else may connect
    uint64_t shut_at                   # ns: when to shut the port, after that; 0: it is shut, or not yet time
    bint done

# Runs until the master has said stop and nothing is in flight, or the master is gone.
cdef void core_run(Core *core) noexcept nogil
# As Service.report; `context` is the Core.
cdef void core_report(void *context, uint32_t kind, uint32_t row, uint64_t value) noexcept nogil
