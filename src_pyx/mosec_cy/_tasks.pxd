# A task between its acceptance and its answer: its payload's block, its time-out, its client.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._state cimport Service

cdef const char *SERVICE_TIMEOUT                                       # what a 408 for a deadline says

# The books of the blocks that core holds.
cdef void block_charge(Service *s, uint32_t block) noexcept nogil      # core has claimed it
cdef void block_drop(Service *s, uint32_t block) noexcept nogil        # core gives it up; NO_BLOCK: nothing to do
# A client waits for it from now on, until `deadline` (ns), or if that is 0 for the service's time-out.
cdef void task_admit(Service *s, uint32_t slot, uint64_t deadline) noexcept nogil
# The answer to the client, if it still waits. The task ends; `block` (core's, or NO_BLOCK) goes with it.
cdef void task_end(Service *s, uint32_t slot, int status, uint32_t content_type, const uint8_t *payload,
                   uint64_t length, uint32_t block) noexcept nogil
cdef void task_end_text(Service *s, uint32_t slot, int status, const char *text) noexcept nogil    # `text` is static
# Nobody waits for this task any more. It goes at once if no row has started it, else when that row is done.
cdef void task_leave(Service *s, uint32_t slot) noexcept nogil
# The answer to a client that waits for a task which may be running. `text` is static, or the answer is a stream.
cdef void task_fail(Service *s, uint32_t slot, int status, const uint8_t *text, uint64_t n) noexcept nogil
cdef void task_time_out(Service *s, uint32_t slot, const char *text) noexcept nogil                # answers 408
cdef void task_expire(Service *s, uint32_t slot) noexcept nogil        # its deadline has passed: answers 408 for that
cdef void tasks_expire(Service *s) noexcept nogil                      # those that are due at s.now
cdef uint64_t tasks_deadline(const Service *s) noexcept nogil          # ns
