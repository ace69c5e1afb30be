"""Pickles with their buffers beside them in one block: written once, looked into by the next stage."""

import pickle

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef enum:
    ALIGNMENT = 64                     # of the buffers; a block's payload begins at a multiple of it


cdef inline uint64_t _aligned(uint64_t n) noexcept nogil:
    return (n + ALIGNMENT - 1) & ~(<uint64_t>ALIGNMENT - 1)


cdef inline uint64_t _buffers_start(Py_ssize_t count, Py_ssize_t pickle_n) noexcept nogil:
    return _aligned(sizeof(FrameHeader) + <uint64_t>count * sizeof(FrameEntry) + <uint64_t>pickle_n)


cdef uint64_t frame_bytes(bytes pickled, list views) except? 0:
    cdef uint64_t n = _buffers_start(len(views), PyBytes_GET_SIZE(pickled))
    for view in views:
        n = _aligned(n + <uint64_t>view.nbytes)
    return n


cdef int frame_write(Payloads payloads, uint8_t *room, bytes pickled, list views) except -1:
    cdef FrameHeader *header = <FrameHeader *>room
    cdef FrameEntry *entries = <FrameEntry *>(room + sizeof(FrameHeader))
    cdef uint64_t at = _buffers_start(len(views), PyBytes_GET_SIZE(pickled))
    cdef Py_buffer buffer
    cdef uint32_t i
    header.buffers = <uint32_t>len(views)
    header.reserved = 0
    header.pickle_offset = sizeof(FrameHeader) + header.buffers * sizeof(FrameEntry)
    header.pickle_length = PyBytes_GET_SIZE(pickled)
    payloads.copy(room + header.pickle_offset, PyBytes_AS_STRING(pickled), header.pickle_length)
    for i in range(<uint32_t>len(views)):
        PyObject_GetBuffer(views[i], &buffer, PyBUF_SIMPLE)
        entries[i].offset = at
        entries[i].length = buffer.len
        payloads.copy(room + at, buffer.buf, buffer.len)
        at = _aligned(at + <uint64_t>buffer.len)
        PyBuffer_Release(&buffer)
    return 0


cdef object frame_load(Item item):
    cdef uint64_t length = item.length
    cdef FrameHeader header
    cdef FrameEntry entry
    cdef uint32_t i
    cdef list buffers = []
    if length < sizeof(FrameHeader):
        raise ValueError("malformed frame between stages")
    memcpy(&header, item.data, sizeof(FrameHeader))              # copied once, then checked
    if header.buffers > MAX_FRAME_BUFFERS or length < sizeof(FrameHeader) + header.buffers * sizeof(FrameEntry) or \
            header.pickle_offset > length or header.pickle_length > length - header.pickle_offset:
        raise ValueError("malformed frame between stages")
    view = memoryview(item)
    for i in range(header.buffers):
        memcpy(&entry, item.data + sizeof(FrameHeader) + i * sizeof(FrameEntry), sizeof(FrameEntry))
        if entry.offset > length or entry.length > length - entry.offset:
            raise ValueError("malformed frame between stages")
        buffers.append(view[entry.offset:entry.offset + entry.length])
    return pickle.loads(view[header.pickle_offset:header.pickle_offset + header.pickle_length], buffers=buffers)
