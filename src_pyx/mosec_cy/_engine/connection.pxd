# The transport of connections: sockets, buffers that outlive an event, time-outs. Knows nothing of HTTP.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from mosec_cy._engine.linux cimport epoll_event
from mosec_cy._engine.list cimport List, ListLink
from mosec_cy._engine.ring cimport Bell

cdef enum:
    NO_CONNECTION = 0xFFFFFFFF
    SEND_DONE = 0                 # all is with the kernel
    SEND_AGAIN = 1                # the socket is full: the rest is kept, wait for EPOLLOUT
    SEND_GONE = -1                # reset, or another error: the connection is unusable
    RECEIVE_AGAIN = -1            # nothing to read now
    RECEIVE_GONE = -2             # as SEND_GONE

cdef enum Timer:                  # each kind has one duration, so that its list is ordered by deadline
    TIMER_NONE = 0
    TIMER_HEADER                  # a request's head must be complete
    TIMER_IDLE                    # between requests
    TIMER_BODY                    # the body must make progress
    TIMER_WRITE                   # the client must read
    TIMER_LINGER                  # a refused client may finish sending
    TIMER_STREAM                  # an event or a comment must be sent, so that the client sees that core is alive
    TIMER_PROBE                   # the client has sent FIN and waits for its answer: probe whether it is there

cdef enum:
    TIMER_KINDS = 8               # of Timer

ctypedef struct Connection:
    int fd                        # -1: the slot is free
    uint32_t generation           # grows when the slot is freed
    uint8_t timer                 # a Timer
    bint readable                 # an edge was seen and the socket was not found empty since
    bint read_closed              # the client has sent FIN
    bint listed                   # in the ready list
    ListLink timer_link           # in the list of its timer; free: next free slot
    uint64_t deadline             # ns
    uint64_t moved                # body or answer bytes moved since the timer was armed
    uint64_t unread               # bytes that the kernel still held for the client when TIMER_WRITE was armed
    char *input                   # holds bytes that were read and not yet consumed; NULL when there are none
    uint32_t input_start
    uint32_t input_n
    char *output                  # unsent rest of a head; NULL when there is none
    uint32_t output_n
    uint32_t output_sent
    const uint8_t *payload        # unsent rest of a payload; its owner keeps it until SEND_DONE
    uint64_t payload_n

ctypedef struct Connections:
    Connection *all
    uint32_t capacity
    uint32_t used                 # slots that were ever used
    uint32_t free_head
    uint32_t open
    List[TIMER_KINDS] timers      # of each kind, by deadline
    uint64_t[TIMER_KINDS] duration    # ns
    uint32_t *ready               # connections to look at again without waiting for an event
    uint32_t ready_n

cdef int connections_open(Connections *t, uint32_t capacity) noexcept nogil      # 0, or -1: no memory
cdef void connections_close(Connections *t) noexcept nogil                       # closes them all
cdef uint32_t connection_open(Connections *t, int fd) noexcept nogil     # slot, or NO_CONNECTION: the table is full
# Unsent bytes are lost and the client gets a reset, so that it does not take a partial answer for the whole.
cdef void connection_close(Connections *t, uint32_t slot) noexcept nogil
# TIMER_NONE disarms.
cdef void connection_arm(Connections *t, uint32_t slot, uint8_t timer, uint64_t now) noexcept nogil
# A slot whose deadline has passed, or NO_CONNECTION.
cdef uint32_t connection_expired(Connections *t, uint64_t now) noexcept nogil
cdef uint64_t connections_deadline(const Connections *t) noexcept nogil          # ns; the largest value if none
cdef void connection_list(Connections *t, uint32_t slot) noexcept nogil          # look at it again soon
# Bytes received (> 0), 0 at the client's FIN, RECEIVE_AGAIN, RECEIVE_GONE.
cdef int64_t connection_receive(Connection *c, void *buffer, size_t n) noexcept nogil
cdef int connection_keep_input(Connection *c, const char *data, size_t n) noexcept nogil   # copies; 0, or -1: no memory
cdef void connection_consume(Connection *c, size_t n) noexcept nogil             # the first `n` bytes of what was kept
cdef size_t connection_take_input(Connection *c, char *buffer) noexcept nogil    # moves what was kept into `buffer`
# The head is copied where it cannot be sent at once, the payload is not. SEND_DONE, SEND_AGAIN, SEND_GONE.
cdef int connection_send(
    Connection *c, const char *head, size_t head_n, const uint8_t *payload, uint64_t payload_n
) noexcept nogil
cdef int connection_flush(Connection *c) noexcept nogil
# Bytes of a body that came in, or of an answer that the client's side took, since the timer was armed.
cdef uint64_t connection_progress(const Connection *c) noexcept nogil
cdef bint connection_has_output(const Connection *c) noexcept nogil

# ---- epoll ---------------------------------------------------------------------------------------
# The system calls of the event loop: one epoll instance, core's bell and the clock.

cdef enum:
    LOOP_EVENTS = 256
    # What an event's token names, in its top four bits; then 28 bits of generation, 32 bits of slot. A stale event
    # of a connection (its descriptor was closed and reused within the same wake-up) fails the generation check.
    TOKEN_CONNECTION = 1
    TOKEN_LISTENER = 2
    TOKEN_BELL = 3
    TOKEN_CONTROL = 4
    TOKEN_PROCESS = 5

ctypedef struct Loop:
    int epoll
    int bell_fd                    # eventfd, edge-triggered; read only to repair a full counter
    Bell *bell                     # core's, in shared memory
    bint coarse                    # the kernel has no epoll_pwait2: milliseconds
    uint64_t now                   # ns, CLOCK_MONOTONIC, read once a wake-up
    epoll_event[LOOP_EVENTS] events

cdef int loop_open(Loop *loop, int bell_fd, Bell *bell) noexcept nogil          # 0 or -errno
cdef void loop_close(Loop *loop) noexcept nogil
cdef uint64_t loop_token(uint32_t kind, uint32_t generation, uint32_t slot) noexcept nogil
cdef uint32_t token_kind(uint64_t token) noexcept nogil
cdef uint32_t token_generation(uint64_t token) noexcept nogil                   # the low 28 bits of it
cdef uint32_t token_slot(uint64_t token) noexcept nogil
cdef int loop_add(Loop *loop, int fd, uint32_t events, uint64_t token) noexcept nogil      # 0 or -errno
cdef void loop_remove(Loop *loop, int fd) noexcept nogil
# Waits for events until `deadline` (ns; <= now: does not wait). A caller that waits has called bell_prepare and looked
# for work again. Updates `now`. Returns the number of events.
cdef int loop_wait(Loop *loop, uint64_t deadline) noexcept nogil
