"""The shared memory of a service: creation, sealing, mapping and the statistics in it."""

import fcntl
import os
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from mosec_cy._engine.linux cimport (
    FUTEX_ALL,
    load_acquire_u32,
    load_relaxed_u64,
    mosec_futex_wake,
    store_relaxed_u32,
    store_relaxed_u64,
    store_release_u32,
)
from mosec_cy._engine.pool cimport align_up, pool_attach, pool_count, pool_data_bytes, pool_layout, pool_words_bytes
from mosec_cy._engine.ring cimport bell_force, ring_attach, ring_bytes

cdef extern from "<sys/mman.h>" nogil:
    void *c_mmap "mmap"(void *address, size_t length, int protection, int flags, int fd, long offset)
    int c_munmap "munmap"(void *address, size_t length)
    int PROT_READ, PROT_WRITE, MAP_SHARED
    void *MAP_FAILED

cdef enum:
    MAGIC = 0x7963636573_6F6D   # "moseccy", little-endian
    VERSION = 1
    MAX_BLOCKS_PER_CLASS = 65536
    PAGE = 4096
    MAX_SLOTS = 4096

ctypedef struct Header:
    uint64_t magic
    uint32_t version
    uint32_t slots
    uint32_t max_tasks
    uint32_t routes
    uint64_t budget
    uint64_t size
    uint32_t capacities[1]      # submit and complete, for each slot

STATUS_CODES = (200, 204, 400, 404, 405, 408, 411, 413, 414, 415, 417, 422, 429, 431, 499, 500, 501, 502, 503, 505, 0)
"""HTTP statuses in the order of the counts in `Segment.stats`; 0 stands for every other status."""

CONTROL_FORMAT = "=IIIiQ"
"""struct.Struct of a ControlMessage: kind, slot, incarnation, pid, value."""

cdef int[STATUS_COUNT] _statuses = STATUS_CODES


cdef uint32_t status_index(int status) noexcept nogil:
    cdef uint32_t i
    for i in range(STATUS_COUNT - 1):
        if _statuses[i] == status:
            return i
    return STATUS_COUNT - 1


cdef inline void _histogram_add(Histogram *histogram, uint64_t value, uint64_t unit) noexcept nogil:
    cdef uint64_t limit = unit
    cdef uint32_t k = 0
    while k < HISTOGRAM_BUCKETS - 1 and value > limit:
        limit <<= 1
        k += 1
    # Core is the only writer; relaxed, because a reader may be a moment behind.
    store_relaxed_u64(&histogram.buckets[k], histogram.buckets[k] + 1)
    store_relaxed_u64(&histogram.sum, histogram.sum + value)


cdef void histogram_add_ns(Histogram *histogram, uint64_t ns) noexcept nogil:
    _histogram_add(histogram, ns, 1_000_000)


cdef void histogram_add_count(Histogram *histogram, uint64_t value) noexcept nogil:
    _histogram_add(histogram, value, 1)


cdef void slot_wake(SlotShared *shared) noexcept nogil:
    bell_force(&shared.bell)
    mosec_futex_wake(&shared.bell.counter, 1)
    bell_force(&shared.stream_bell)
    mosec_futex_wake(&shared.stream_bell.counter, FUTEX_ALL)


cdef class Segment:
    """A service's shared memory.

    The master makes it with `create`; core and workers map it with `attach`. The file is sealed against shrinking and
    growing, so that no process of the service can take pages away from another one (SIGBUS).
    """

    def __cinit__(self):
        self.fd = -1

    @staticmethod
    def create(slots, uint32_t max_tasks, uint64_t budget, uint32_t routes):
        """A new segment.

        Args:
            slots: (submit, complete) ring capacities of each slot in descriptors, powers of two; 0 is the master's.
            max_tasks: tasks that can be inside at once.
            budget: bytes of payload memory.
            routes: routes that are counted separately; one more is kept for requests that matched none.

        Raises:
            ValueError: a size is out of range.
            OSError: the kernel did not provide a memory file.
        """
        cdef Segment segment = Segment.__new__(Segment)
        cdef list flat = []
        for pair in slots:
            flat += pair
        if not 1 <= len(slots) <= MAX_SLOTS:
            raise ValueError(f"a service has 1 to {MAX_SLOTS} slots, not {len(slots)}")
        segment._measure(len(slots), max_tasks, routes, budget, flat)
        segment.fd = os.memfd_create("mosec_cy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(segment.fd, segment.size)
        fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        segment._map()
        segment._write_header()
        return segment

    @staticmethod
    def attach(int fd):
        """The segment of an inherited descriptor, which the object owns from then on.

        Raises:
            ValueError: that file is not such a segment, or is corrupt.
        """
        cdef Segment segment = Segment.__new__(Segment)
        size = os.fstat(fd).st_size
        if size < PAGE:
            raise ValueError(f"descriptor {fd} is no shared memory of a service: it has {size} bytes")
        head = os.pread(fd, sizeof(Header) + 8 * MAX_SLOTS, 0)     # a copy: checked, then used
        cdef const Header *header = <const Header *>PyBytes_AS_STRING(head)
        if header.magic != MAGIC or header.version != VERSION or not 1 <= header.slots <= MAX_SLOTS:
            raise ValueError(f"descriptor {fd} is no shared memory of this version of mosec_cy")
        if <size_t>len(head) < sizeof(Header) + 8 * header.slots:
            raise ValueError(f"shared memory of {size} bytes where the header of {header.slots} slots was expected")
        segment._measure(header.slots, header.max_tasks, header.routes, header.budget,
                         [header.capacities[i] for i in range(2 * header.slots)])
        if segment.size != <uint64_t>size:
            raise ValueError(f"shared memory of {size} bytes where {segment.size} were expected")
        segment.fd = fd
        segment._map()
        return segment

    cdef int _measure(
        self, uint32_t slots, uint32_t max_tasks, uint32_t routes, uint64_t budget, list capacities
    ) except -1:
        cdef Pool pool
        cdef uint64_t at
        cdef uint32_t i
        for capacity in capacities:         # an attaching process masks its indices with these, from the header
            if capacity < 1 or capacity & (capacity - 1) or capacity > 1 << 24:
                raise ValueError(f"a ring's capacity is a power of two up to 2^24, not {capacity}")
        memset(&pool, 0, sizeof(Pool))
        if pool_layout(&pool, budget, MAX_BLOCKS_PER_CLASS) != 0:
            raise ValueError(f"a memory budget of {budget} bytes is too small: 1 MiB is the least")
        self.slots, self.max_tasks, self.routes, self.budget = slots, max_tasks, routes, budget
        self.at_rings = <uint64_t *>calloc(2 * slots, sizeof(uint64_t))
        self.capacities = <uint32_t *>calloc(2 * slots, sizeof(uint32_t))
        if self.at_rings == NULL or self.capacities == NULL:
            raise MemoryError
        self.at_bell = align_up(sizeof(Header) + 8 * slots, PAGE)
        self.at_slots = self.at_bell + PAGE
        self.at_words = align_up(self.at_slots + slots * sizeof(SlotShared), PAGE)
        self.at_acknowledged = align_up(self.at_words + <uint64_t>max_tasks * sizeof(uint64_t), PAGE)
        self.at_statistics = align_up(self.at_acknowledged + <uint64_t>max_tasks * sizeof(uint64_t), PAGE)
        self.at_slot_statistics = self.at_statistics + sizeof(Statistics)
        self.at_stage_statistics = self.at_slot_statistics + slots * sizeof(SlotStatistics)
        self.at_status_counts = self.at_stage_statistics + slots * sizeof(StageStatistics)
        at = align_up(
            self.at_status_counts + (<uint64_t>routes + 1) * STATUS_COUNT * sizeof(uint64_t), PAGE)
        for i in range(2 * slots):
            self.capacities[i] = capacities[i]
            self.at_rings[i] = at
            at += align_up(ring_bytes(self.capacities[i]), PAGE)
        self.at_pool_words = at
        self.at_pool_data = align_up(at + pool_words_bytes(&pool), PAGE)
        self.size = align_up(self.at_pool_data + pool_data_bytes(&pool), PAGE)
        return 0

    cdef int _map(self) except -1:
        cdef void *base = c_mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if base == MAP_FAILED:
            raise OSError(f"cannot map {self.size} bytes of shared memory; --budget sets its size")
        self.base = <uint8_t *>base
        return 0

    cdef void _write_header(self) noexcept:
        cdef Header *header = <Header *>self.base
        cdef uint32_t i
        header.version = VERSION
        header.slots = self.slots
        header.max_tasks = self.max_tasks
        header.routes = self.routes
        header.budget = self.budget
        header.size = self.size
        for i in range(2 * self.slots):
            header.capacities[i] = self.capacities[i]
        header.magic = MAGIC

    def close(self):
        """Closes the descriptor. The mapping stays until the object is collected: leases still point into it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def unmap(self):
        """Unmaps the memory. For a forked copy of a process that used it: nothing may point into it any more."""
        if self.base != NULL:
            c_munmap(self.base, self.size)
            self.base = NULL

    def __dealloc__(self):
        self.unmap()
        free(self.at_rings)
        free(self.capacities)

    cdef Bell *core_bell(self) noexcept nogil:
        return <Bell *>(self.base + self.at_bell)

    cdef SlotShared *slot(self, uint32_t slot) noexcept nogil:
        return <SlotShared *>(self.base + self.at_slots) + slot

    cdef uint64_t *words(self) noexcept nogil:
        return <uint64_t *>(self.base + self.at_words)

    cdef uint64_t *acknowledged(self) noexcept nogil:
        return <uint64_t *>(self.base + self.at_acknowledged)

    cdef Statistics *statistics(self) noexcept nogil:
        return <Statistics *>(self.base + self.at_statistics)

    cdef SlotStatistics *slot_statistics(self, uint32_t slot) noexcept nogil:
        return <SlotStatistics *>(self.base + self.at_slot_statistics) + slot

    cdef StageStatistics *stage_statistics(self, uint32_t stage) noexcept nogil:
        return <StageStatistics *>(self.base + self.at_stage_statistics) + stage

    cdef uint64_t *status_counts(self, uint32_t route) noexcept nogil:
        return <uint64_t *>(self.base + self.at_status_counts) + <size_t>route * STATUS_COUNT

    cdef void attach_submit(self, uint32_t slot, RingEnd *end) noexcept nogil:
        ring_attach(end, self.base + self.at_rings[2 * slot], self.capacities[2 * slot])

    cdef void attach_complete(self, uint32_t slot, RingEnd *end) noexcept nogil:
        ring_attach(end, self.base + self.at_rings[2 * slot + 1], self.capacities[2 * slot + 1])

    cdef uint32_t submit_capacity(self, uint32_t slot) noexcept nogil:
        return self.capacities[2 * slot]

    cdef int attach_pool(self, Pool *pool, uint32_t process) noexcept nogil:
        cdef int rc
        memset(pool, 0, sizeof(Pool))
        rc = pool_layout(pool, self.budget, MAX_BLOCKS_PER_CLASS)
        if rc == 0:
            pool_attach(pool, self.base + self.at_pool_words, self.base + self.at_pool_data,
                        process, self.slots + 1)
        return rc

    def _slot(self, uint32_t slot):
        if slot >= self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return slot

    def begin_slot(self, uint32_t slot, uint32_t incarnation):
        """Clears the slot's shared entry for a process that is about to start, and writes the header again, which that
        process reads: a faulty process may have corrupted it."""
        cdef SlotShared *shared = self.slot(self._slot(slot))
        self._write_header()
        memset(shared, 0, sizeof(SlotShared))
        store_relaxed_u32(&shared.incarnation, incarnation)     # relaxed: for readers outside the service

    def stop_slot(self, uint32_t slot):
        """Asks the slot's process to finish what is in its ring and to end."""
        cdef SlotShared *shared = self.slot(self._slot(slot))
        store_release_u32(&shared.command, SLOT_STOP)    # pairs with the acquire in Channel.take, before the bell
        slot_wake(shared)

    def slots_in_forward(self):
        """The slots whose process reports that it is in `forward`, as a set of numbers."""
        # Acquire; pairs with the release in Channel.begin_forward.
        return {slot for slot in range(self.slots) if runs_user_code(load_acquire_u32(&self.slot(slot).phase))}

    def continue_counts(self, Segment old not None):
        """Takes over the counts of `old`, whose core has ended; called before the core of this segment starts.

        Gauges start anew.

        Raises:
            ValueError: the segments are of different services.
        """
        cdef Statistics *s = self.statistics()
        if (self.slots, self.routes) != (old.slots, old.routes):
            raise ValueError(
                f"{old.slots} slots and {old.routes} routes where {self.slots} and {self.routes} were expected")
        memcpy(s, old.statistics(), self.at_rings[0] - self.at_statistics)
        s.remaining = s.connections = s.charged = 0
        for stage in range(self.slots):
            self.stage_statistics(stage).fixed_ns = self.stage_statistics(stage).slope_ns = 0

    def stats(self):
        """What core has counted so far, as lists and numbers (seconds); counts are in the order of STATUS_CODES."""
        cdef Statistics *s = self.statistics()
        return {
            "routes": [_counts(self.status_counts(route)) for route in range(self.routes + 1)],
            "total": _histogram(&s.total, 1e-9),
            "slots": [_slot_statistics(self.slot_statistics(slot)) for slot in range(self.slots)],
            "stages": [_stage_statistics(self.stage_statistics(stage)) for stage in range(self.slots)],
            # relaxed, here and below: counts that core alone writes, of which the last may be missed
            "remaining": load_relaxed_u64(&s.remaining),
            "connections": load_relaxed_u64(&s.connections),
            "charged": load_relaxed_u64(&s.charged),
            "late": load_relaxed_u64(&s.late),
        }

    def layout(self):
        """Offsets of the parts, in bytes from the start; those of rings as (submit, complete) for each slot."""
        return {
            "core_bell": self.at_bell,
            "slots": [self.at_slots + slot * sizeof(SlotShared) for slot in range(self.slots)],
            "words": self.at_words,
            "acknowledged": self.at_acknowledged,
            "rings": [(self.at_rings[2 * slot], self.at_rings[2 * slot + 1]) for slot in range(self.slots)],
            "pool": self.at_pool_words,
            "data": self.at_pool_data,
            "size": self.size,
        }

    def blocks(self):
        """(blocks that core holds, blocks that processes lease), by a scan of all claims."""
        cdef Pool pool
        cdef uint32_t core_held = 0, leased = 0
        self.attach_pool(&pool, 1)
        pool_count(&pool, &core_held, &leased)
        return core_held, leased


cdef list _counts(const uint64_t *counts):
    return [load_relaxed_u64(counts + k) for k in range(STATUS_COUNT)]     # relaxed, as in Segment.stats


cdef dict _histogram(const Histogram *histogram, unit):
    # relaxed, as in Segment.stats
    return {"buckets": [load_relaxed_u64(&histogram.buckets[k]) for k in range(HISTOGRAM_BUCKETS)],
            "sum": load_relaxed_u64(&histogram.sum) * unit}


REASONS = ("full", "cost", "target", "no_gain", "wait")      # in the order of CLOSED_*


cdef dict _stage_statistics(const StageStatistics *stage):
    # relaxed, as in Segment.stats
    return {"closed": {reason: load_relaxed_u64(&stage.closed[k]) for k, reason in enumerate(REASONS)},
            "fixed": load_relaxed_u64(&stage.fixed_ns) * 1e-9,
            "slope": load_relaxed_u64(&stage.slope_ns) * 1e-9}


cdef dict _slot_statistics(const SlotStatistics *slot):
    return {"duration": _histogram(&slot.duration, 1e-9),
            "batch_size": _histogram(&slot.batch_size, 1),
            "batch_duration": _histogram(&slot.batch_duration, 1e-9)}
