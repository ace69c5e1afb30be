"""Memory between two pages that must not be touched: code that reads outside its buffer dies there."""

import ctypes
import mmap

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class GuardedMemory:
    """`pages` of memory with a forbidden page before and one after. Unmapped with the last view into it."""

    def __init__(self, pages: int = 2) -> None:
        size = (pages + 2) * PAGE
        memory = mmap.mmap(-1, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + PAGE
        self.size = pages * PAGE
        for edge in (self.address - PAGE, self.address + self.size):
            if _mprotect(edge, PAGE, PROT_NONE) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        self._view = memoryview(memory)[PAGE : PAGE + self.size]

    def first(self, data: bytes) -> memoryview:
        """`data` right behind the lower forbidden page."""
        view = self._view[: len(data)]
        view[:] = data
        return view

    def last(self, data: bytes) -> memoryview:
        """`data` right before the upper forbidden page."""
        view = self._view[self.size - len(data) :]
        view[:] = data
        return view
