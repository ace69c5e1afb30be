"""CPython's headers: where they are, and whether they fit the machine that is built for.

On every machine the headers are the same text, except `pyconfig.h`. Debian's packages bring one for each machine;
elsewhere there is only the one that was configured for this machine, and it serves for the other too: both are LP64 and
little-endian. In Debian's two for 3.11 four macros differ: two say what inline assembly the compiler knows, one that
`wchar_t` is unsigned, one how well the machine is supported. None of them changes a type or a structure of the C API;
of what would, `check_headers` makes sure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
DESCRIBE = """
import ensurepip, json, sys, sysconfig
assert not sysconfig.get_config_var("Py_GIL_DISABLED") and not hasattr(sys, "gettotalrefcount")
print(json.dumps([sys.implementation.name, sysconfig.get_path("include"), sys.executable]))
"""
# What the macros of pyconfig.h are the sizes of.
TYPES = {
    "INT": "int",
    "LONG": "long",
    "LONG_LONG": "long long",
    "LONG_DOUBLE": "long double",
    "VOID_P": "void *",
    "SHORT": "short",
    "FLOAT": "float",
    "DOUBLE": "double",
    "_BOOL": "_Bool",
    "SIZE_T": "size_t",
    "WCHAR_T": "wchar_t",
    "TIME_T": "time_t",
    "OFF_T": "off_t",
    "PID_T": "pid_t",
    "UINTPTR_T": "uintptr_t",
    "PTHREAD_T": "pthread_t",
    "PTHREAD_KEY_T": "pthread_key_t",
    "MAX_ALIGN_T": "max_align_t",
}


def describe(python: Path) -> tuple[Path, str] | None:
    """Include directory and path of an interpreter that has headers and can make environments, else None.

    Free-threaded and debug builds are of no use: their extensions are of another kind.
    """
    asked = subprocess.run([str(python), "-c", DESCRIBE], capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    name, include, executable = json.loads(asked.stdout)
    return (Path(include), executable) if name == "cpython" and (Path(include) / "Python.h").is_file() else None


def header_version(headers: Path) -> str:
    """The version that the headers are of, such as "3.12"."""
    found = re.search(r'#define\s+PY_VERSION\s+"(\d+\.\d+)', (headers / "patchlevel.h").read_text())
    if found is None:
        raise SystemExit(f"{headers}: patchlevel.h does not say which version of Python it is of")
    return found[1]


def find_headers(pythons: Sequence[Path], directories: Sequence[Path]) -> dict[str, tuple[Path, str]]:
    """For each version its include directory and an interpreter or ""; what was named goes before what is found."""
    found: dict[str, tuple[Path, str]] = {}
    candidates = [*pythons, Path(sys.executable)]
    for version in VERSIONS:
        candidates += [Path(path) for path in [shutil.which(f"python{version}")] if path]
        candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in candidates:
        described = describe(python)
        if described:
            found.setdefault(header_version(described[0]), described)
        elif python in pythons:
            raise SystemExit(
                f"--python {python}: needs CPython, neither free-threaded nor debug, with headers and ensurepip"
            )
    for directory in directories:
        if not (directory / "Python.h").is_file():
            raise SystemExit(f"--headers {directory}: there is no Python.h")
        version = header_version(directory)
        found[version] = (directory, found.get(version, (directory, ""))[1])
    return found


def stage_headers(headers: Path, machine: str, folder: Path) -> Path:
    """A copy of the headers with the machine's `pyconfig.h`: Debian's only says where each machine's is."""
    shutil.copytree(headers, folder)
    config = folder / "pyconfig.h"
    if f"{machine}-linux-gnu/" in config.read_text():
        places = [headers.parent / f"{name}-linux-gnu" / headers.name for name in (machine, os.uname().machine)]
        place = next((place for place in places if (place / "pyconfig.h").is_file()), None)
        if place is None:
            raise SystemExit(f"{headers}: its pyconfig.h refers to {places[0]}, which is not there")
        shutil.copyfile(place / "pyconfig.h", config)
    if re.search(r"^#define Py_(GIL_DISABLED|DEBUG|TRACE_REFS) 1", config.read_text(), re.MULTILINE):
        raise SystemExit(f"{headers}: of a free-threaded or debug build, whose extensions are of another kind")
    return folder


def check_headers(headers: Path, compiler: str, folder: Path) -> None:
    """Compile each size and alignment that `pyconfig.h` states against what the compiler knows of its target.

    Raises:
        SystemExit: they differ, or `Python.h` does not compile.
    """
    lines = ["#include <Python.h>", "#include <stddef.h>", "#include <pthread.h>", "#include <stdint.h>"]
    for of, operator in (("SIZEOF", "sizeof"), ("ALIGNOF", "_Alignof")):
        for name, kind in TYPES.items():
            macro = f"{of}_{name}"
            lines += [f"#ifdef {macro}", f'_Static_assert({macro} == {operator}({kind}), "{macro}");', "#endif"]
    lines += ["#ifdef WORDS_BIGENDIAN", "#error big-endian", "#endif"]
    source = folder / "check_headers.c"
    source.write_text("\n".join(lines) + "\n")
    command = [*compiler.split(), f"-I{headers}", "-c", str(source), "-o", str(source.with_suffix(".o"))]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        raise SystemExit(f"the headers in {headers} do not fit the target of {compiler}:\n{compiled.stderr}")
