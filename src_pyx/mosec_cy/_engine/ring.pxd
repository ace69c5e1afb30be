# A single-producer single-consumer ring of task descriptors over memory that the caller gives, the bell with which one
# side sleeps until the other has work for it, and a task's word. Knows no clock and no descriptor.

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from mosec_cy._engine.linux cimport load_acquire_u64

cdef enum:
    NO_BLOCK = 0xFFFFFFFF      # a descriptor that carries no payload

cdef enum:                     # results of the ring's functions
    RING_OK = 0
    RING_FULL = -1             # push: no place is free
    RING_EMPTY = -2            # pop: nothing was published
    RING_BROKEN = -3           # the peer's index is impossible: the memory has been corrupted

# One cache line. It carries where a payload lies, never the payload.
ctypedef struct Descriptor:
    uint64_t task              # task id: entry | generation << 32
    uint32_t sequence          # dispatch sequence of the dispatch that this is, or that it answers
    uint32_t block             # pool block of the payload, or NO_BLOCK
    uint64_t length            # bytes of the payload
    uint32_t offset            # bytes from the block's start to the payload
    uint32_t batch             # number of the batch within its slot
    uint32_t batch_size        # submit: tasks in that batch
    uint16_t status            # complete: HTTP status (200 goes on to the next stage)
    uint16_t content_type      # complete: index into the core's table of content types
    uint32_t flags             # see below; the ring looks at none of them
    uint32_t cost              # complete: cost in the next stage, if that takes it from this one
    uint64_t reserved1
    uint64_t reserved2

cdef enum:                             # Descriptor.flags
    PAYLOAD_FRAMED = 1                 # a pickle with its buffers beside it, see FrameHeader; else a plain payload
    TASK_FIRST = 2                     # to a slot: the payload is the request's body
    TASK_LAST = 4                      # to a slot: the result is the client's answer
    STREAM_EVENT = 8                   # to core: an event; the answer goes on (other statuses than 200: ends)
    TASK_REPEATABLE = 16               # to a slot: the payload may be needed once more, work on a copy of it
    BODY_GZIP = 256                    # to a first stage's slot: the body has this content coding
    BODY_ZSTD = 512
    ANSWER_GZIP = 1024                 # to a last stage's slot: the client prefers this coding; from it: the answer's
    ANSWER_ZSTD = 2048
    ANSWER_NOT_PLAIN = 4096            # to a last stage's slot: the client refuses an answer without a coding
    ANSWER_VARIES = 8192               # from a last stage's slot: the answer's coding depends on the request
    ANSWER_WISHES = ANSWER_GZIP | ANSWER_ZSTD | ANSWER_NOT_PLAIN

# In shared memory: head (written by the producer), tail (by the consumer), each on its own cache line,
# then `capacity` descriptors. Both indices are unbounded and masked on use.
ctypedef struct RingMemory:
    uint64_t head
    uint64_t head_padding[7]
    uint64_t tail
    uint64_t tail_padding[7]
    Descriptor descriptors[1]  # `capacity` of them

# In private memory: one end's view.
ctypedef struct RingEnd:
    RingMemory *memory
    uint64_t mask              # capacity - 1
    uint64_t own               # own index, ahead of what is published until publish/release
    uint64_t peer              # the peer's index as last read

cdef size_t ring_bytes(uint32_t capacity) noexcept nogil             # bytes to reserve, a multiple of 64
# Over zeroed memory; capacity is a power of two.
cdef void ring_attach(RingEnd *end, void *memory, uint32_t capacity) noexcept nogil
cdef void ring_reset(RingEnd *end) noexcept nogil                    # empties it; the peer is dead
# Producer. `push` copies into the next place, unseen by the consumer until `publish`.
cdef uint32_t ring_free(RingEnd *end) noexcept nogil                 # places that can be pushed to now
cdef bint ring_is_corrupt(RingEnd *end) noexcept nogil                # the consumer's index is impossible
cdef int ring_push(RingEnd *end, const Descriptor *descriptor) noexcept nogil   # RING_OK, RING_FULL, RING_BROKEN
cdef void ring_publish(RingEnd *end) noexcept nogil
# Consumer. `pop` copies once (the copy is what is checked afterwards); `release` frees the places.
cdef int ring_pop(RingEnd *end, Descriptor *out) noexcept nogil      # RING_OK, RING_EMPTY, RING_BROKEN
cdef void ring_release(RingEnd *end) noexcept nogil
# Something is published (or the ring is broken: pop tells).
cdef inline bint ring_has_news(const RingEnd *end) noexcept nogil:
    # Acquire; pairs with the release in ring_publish. Between bell_prepare and sleep, its fence comes before this.
    return end.own != end.peer or load_acquire_u64(&end.memory.head) != end.own


# In shared memory. The sleeper waits until `counter` differs from the value it read; how it waits (futex on `counter`,
# eventfd) is the caller's choice.
ctypedef struct Bell:
    uint32_t counter           # grows each time the bell is rung
    uint32_t sleeping          # 1 while the owner sleeps or is about to

# Sleeper: `seen = bell_prepare(b)`; look again for work; if there is none, wait while counter == seen; then bell_awake.
cdef uint32_t bell_prepare(Bell *bell) noexcept nogil
cdef void bell_awake(Bell *bell) noexcept nogil
# Ringer, after it has published: true when the sleeper must be woken by a system call (counter is advanced,
# `sleeping` is cleared, so that one of several ringers makes the call).
cdef bint bell_ring(Bell *bell) noexcept nogil
# The same, but the caller always makes the system call: for a ringer that cannot rely on the others being alive
# (one that was killed between clearing `sleeping` and its call has swallowed that wake-up).
cdef void bell_force(Bell *bell) noexcept nogil

# ---- the task word -------------------------------------------------------------------------------
# A task's word in shared memory: whether a slot may run the task. Of a task, core and the slots both write only this.
# Its upper half is the dispatch sequence, which grows at each dispatch and each reclaim: a stale descriptor fits no
# later dispatch.

cdef enum:                            # flags, in the lower half
    WORD_DISPATCHED = 1               # waits in a slot's ring: the slot may start it, core may reclaim it
    WORD_STARTED = 2                  # set by the slot
    WORD_CANCELLED = 4                # set by core while it runs: no client waits for the answer

# Core's side.
cdef void word_dispatch(uint64_t *word, uint32_t sequence) noexcept nogil
# True when (sequence) had not been started and now cannot be; the word's sequence is then the next.
cdef bint word_reclaim(uint64_t *word, uint32_t sequence) noexcept nogil
cdef void word_cancel(uint64_t *word) noexcept nogil
# Slot's side. True when (sequence) was waiting and is now started by the caller.
cdef bint word_start(uint64_t *word, uint32_t sequence) noexcept nogil
cdef bint word_cancelled(const uint64_t *word, uint32_t sequence) noexcept nogil
