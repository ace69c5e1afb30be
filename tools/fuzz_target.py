"""Runs one target of tests/fuzz/guided under libFuzzer: `python -m tools.fuzz_target NAME LIBRARY [OPTION]…`.

`tools.fuzz` starts this with the address sanitizer loaded and an instrumented engine first on the path. The library is
libFuzzer without its main function; it has to be loaded before the engine, whose coverage it counts.
"""

import ctypes
import os
import sys
import traceback

from tests.fuzz.guided.targets import load


def main() -> int:
    name, library, *options = sys.argv[1:]
    fuzzer = ctypes.PyDLL(library, mode=ctypes.RTLD_GLOBAL)
    target = load(name)

    def run(data: int, size: int) -> int:
        try:
            target(ctypes.string_at(data, size))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os.abort()  # libFuzzer keeps the input
        return 0

    callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(run)
    # The first of them is the command by which libFuzzer starts itself again, to merge.
    command = " ".join([sys.executable, "-m", "tools.fuzz_target", name, library])
    words = [command.encode(), *(option.encode() for option in options)]
    count = ctypes.c_int(len(words))
    array = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    pointer = ctypes.cast(array, ctypes.POINTER(ctypes.c_char_p))
    return int(fuzzer.LLVMFuzzerRunDriver(ctypes.byref(count), ctypes.byref(pointer), callback))


if __name__ == "__main__":
    sys.exit(main())
