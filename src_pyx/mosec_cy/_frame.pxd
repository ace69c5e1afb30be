# A framed payload: what pickle protocol 5 (PEP 574) leaves out of band lies beside the pickle in the same block.
#
#   header | entries, one a buffer | pickle | buffers, each 64-byte aligned
#
# Offsets count from the header, which lies where the payload begins.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._payload cimport Item, Payloads

cdef enum:
    MAX_FRAME_BUFFERS = 65536

ctypedef struct FrameHeader:
    uint32_t buffers
    uint32_t reserved
    uint64_t pickle_offset             # bytes, as all below
    uint64_t pickle_length

ctypedef struct FrameEntry:
    uint64_t offset
    uint64_t length

# `views`: contiguous memoryviews of bytes, at most MAX_FRAME_BUFFERS.
cdef uint64_t frame_bytes(bytes pickled, list views) except? 0
cdef int frame_write(Payloads payloads, uint8_t *room, bytes pickled, list views) except -1    # room for frame_bytes
# The pickled value; its buffers are views of the payload. ValueError: the frame is malformed.
cdef object frame_load(Item item)
