# Intrusive doubly linked lists: items of an array with a ListLink in each, named by their index. Inline.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

cdef enum:
    NO_INDEX = 0xFFFFFFFF             # no item; before the first, after the last

ctypedef struct ListLink:
    uint32_t previous
    uint32_t next

ctypedef struct List:
    uint32_t head
    uint32_t tail


cdef inline ListLink *link_of(ListLink *first, size_t stride, uint32_t item) noexcept nogil:
    """The link of `item` in the array whose item 0 has its link at `first`; items are `stride` bytes apart."""
    return <ListLink *>(<char *>first + stride * item)


cdef inline void list_insert(List *to, ListLink *first, size_t stride, uint32_t item, uint32_t after) noexcept nogil:
    """Put an item that is in no list before `after`; NO_INDEX: at the end."""
    cdef ListLink *link = link_of(first, stride, item)
    cdef uint32_t before = to.tail
    if after != NO_INDEX:
        before = link_of(first, stride, after).previous
        link_of(first, stride, after).previous = item
    else:
        to.tail = item
    if before != NO_INDEX:
        link_of(first, stride, before).next = item
    else:
        to.head = item
    link.previous = before
    link.next = after


cdef inline void list_remove(List *of, ListLink *first, size_t stride, uint32_t item) noexcept nogil:
    cdef ListLink *link = link_of(first, stride, item)
    if link.previous != NO_INDEX:
        link_of(first, stride, link.previous).next = link.next
    else:
        of.head = link.next
    if link.next != NO_INDEX:
        link_of(first, stride, link.next).previous = link.previous
    else:
        of.tail = link.previous
