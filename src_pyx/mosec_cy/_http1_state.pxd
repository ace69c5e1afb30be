# The state of HTTP/1.x connections, shared by the modules that read, take bodies and write.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mosec_cy._connection cimport Connections
from mosec_cy._http1_service cimport BodyBlock, Http1Service, Verdict
from mosec_cy._http_chunked cimport ChunkedDecoder
from mosec_cy._http_parser cimport HttpLimits, HttpRequest
from mosec_cy._http_writer cimport HttpWriter

cdef enum:
    HTTP1_SCRATCH = 65536          # bytes read at once; a head is at most half of it
    # What one connection may take before the others get their turn: bytes, and heads (pipelined ones are tiny).
    HTTP1_QUOTA = 262144
    HTTP1_HEADS = 64

cdef enum Http1Phase:
    HTTP1_HEAD = 0                 # a head is expected or arriving
    HTTP1_BODY                     # the body is arriving
    HTTP1_DISCARD                  # the small body of a request that is answered, without it, afterwards
    HTTP1_WAIT                     # the service works on it
    HTTP1_WRITE                    # the answer waits for the client to read
    HTTP1_STREAM                   # the answer is a stream, and the service goes on with it
    HTTP1_LINGER                   # refused and answered; what still arrives is thrown away

ctypedef struct Http1:             # one a connection slot
    uint8_t phase
    uint8_t minor
    bint keep_alive
    bint linger                    # the answer refuses what the client may still send, or does not know of yet
    bint is_head
    bint chunked                   # of the body; STREAM: of the answer
    HttpRequest *partial           # the parser's state in a head that is not complete; NULL: at the start of one
    uint32_t route
    uint32_t task_flags            # the service's
    uint64_t deadline              # likewise
    uint64_t remaining             # body bytes still to come (not chunked)
    uint64_t received              # body bytes in the block; LINGER: bytes thrown away
    uint64_t arrived               # ns: the head was complete; LINGER: that began
    BodyBlock body                 # STREAM: of what is unsent; block NO_BLOCK: none
    ChunkedDecoder decoder
    uint64_t task                  # WAIT, STREAM
    uint32_t answer_block          # WRITE: released when sent
    Verdict refusal                # DISCARD

ctypedef struct Http1Io:
    Connections connections
    Http1 *states
    Http1Service service
    HttpLimits limits
    HttpWriter writer
    HttpRequest request            # the one being parsed; nothing of it outlives the event
    uint64_t max_body              # bytes
    bint draining                  # shutting down: each answer closes its connection
    uint32_t heads                 # taken in this turn
    uint64_t now                   # ns
    char *scratch                  # HTTP1_SCRATCH bytes
    char *path                     # room for a decoded path
