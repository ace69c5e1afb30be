"""What a child process sets up at its start: malloc's thresholds, death with its parent, its title in ps(1)."""

from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset
from posix.types cimport pid_t

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long argument, ...)
    int PR_SET_PDEATHSIG

cdef extern from "<unistd.h>" nogil:
    pid_t getppid()
    void _exit(int status)

cdef extern from "<signal.h>" nogil:
    int SIGKILL

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static void keep_pages(int largest, int top) {
        mallopt(M_MMAP_THRESHOLD, largest);
        mallopt(M_TRIM_THRESHOLD, top);
    }
    #else
    static void keep_pages(int largest, int top) {}
    #endif
    """
    void keep_pages(int largest, int top) nogil


def keep_freed_pages():
    """Have malloc keep the pages of freed buffers of up to 32 MiB, 64 MiB in all, for the next ones.

    glibc by default gives a payload's copy back to the kernel when it is freed, and takes a page fault for each
    4 KiB of the next one. These are the largest values that its own adaptive rule would come to.
    """
    keep_pages(32 << 20, 64 << 20)


def die_with_parent(pid_t parent):
    """Have the kernel kill this process when the thread that started it ends; end at once if `parent` is gone.

    The request is made before the parent is looked at: a parent that died in between is noticed by one of the two.
    """
    prctl(PR_SET_PDEATHSIG, <unsigned long>SIGKILL)
    if getppid() != parent:
        _exit(1)


def set_title(bytes title not None):
    """Show `title` in ps(1), cut to the length of the command line that the process was started with.

    The title overwrites the arguments themselves, whose place is in fields 48 and 49 of proc(5)'s /proc/PID/stat. Not
    for a process whose C code may still read its argv.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            # The second field is the program's name in parentheses, which may hold anything: count from its end.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:         # without /proc the title could not be read
        return
    if len(fields) < 47:    # an emulated /proc may end before them: then the title stays
        return
    cdef uintptr_t start = int(fields[45])
    cdef uintptr_t end = int(fields[46])
    if start == 0 or end <= start:
        return
    cdef size_t room = end - start - 1      # the last byte stays NUL, so that the kernel looks for no title beyond it
    cdef size_t n = min(room, <size_t>len(title))
    memset(<void *>start, 0, room)
    memcpy(<void *>start, <const char *>title, n)
