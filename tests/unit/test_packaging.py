"""The checks that a built package has to pass see what they are there for."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.tools import require
from tools.package import manylinux
from tools.package_check import check_contents, check_symbols, must
from tools.package_headers import check_headers, find_headers, header_version, stage_headers

ROOT = Path(__file__).resolve().parents[2]
HEADERS = Path(sysconfig.get_path("include"))
VERSION = "{}.{}".format(*sys.version_info)
MACHINE = os.uname().machine


def whole() -> list[str]:
    """Names of all that belongs in a wheel."""
    modules = [str(path.relative_to(ROOT)) for path in ROOT.glob("mosec_cy/**/*.py")]
    engine = [
        f"mosec_cy/_engine/{path.stem}.cpython-312-x86_64-linux-gnu.so"
        for path in ROOT.glob("src_pyx/mosec_cy/_engine/*.pyx")
    ]
    return [
        *modules,
        *engine,
        "mosec_cy/py.typed",
        "mosec_cy-1.dist-info/licenses/LICENSE",
        "mosec_cy-1.dist-info/RECORD",
    ]


def wheel_of(folder: Path, names: Iterable[str]) -> Path:
    wheel = folder / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return wheel


def test_whole_wheel(tmp_path: Path) -> None:
    check_contents(wheel_of(tmp_path, whole()))


@pytest.mark.parametrize(
    "extra",
    [
        "mosec_cy/_engine/ring.pyx",
        "mosec_cy/_engine/ring.pxd",
        "mosec_cy/_engine/ring.c",
        "tests/conftest.py",
        "tests/drivers/ring.so",
    ],
)
def test_what_does_not_belong_in_a_wheel(tmp_path: Path, extra: str) -> None:
    with pytest.raises(SystemExit, match=f"should not hold .*{extra}"):
        check_contents(wheel_of(tmp_path, [*whole(), extra]))


@pytest.mark.parametrize("lost", ["mosec_cy/worker.py", "mosec_cy/py.typed", "ring", "/licenses/LICENSE"])
def test_what_a_wheel_may_not_lack(tmp_path: Path, lost: str) -> None:
    with pytest.raises(SystemExit, match=f"lacks .*{lost}"):
        check_contents(wheel_of(tmp_path, [name for name in whole() if lost not in name]))


def test_platform_tags() -> None:
    assert manylinux(json.dumps({"overall_tag": "manylinux_2_17_aarch64"})) == "manylinux_2_17_aarch64"
    assert manylinux(json.dumps({"overall_tag": "manylinux_2_28_x86_64"})) == "manylinux_2_28_x86_64"
    for tag in ("manylinux_2_29_x86_64", "manylinux_3_0_x86_64", "musllinux_1_2_x86_64", "linux_x86_64"):
        with pytest.raises(SystemExit, match=f"auditwheel finds {tag}, not manylinux of glibc 2.28 or older"):
            manylinux(json.dumps({"overall_tag": tag}))


def extension(folder: Path, body: str) -> Path:
    """A wheel with one shared library, of a C function with that body."""
    source = folder / "a.c"
    source.write_text("#include <Python.h>\n#include <string.h>\nextern int not_in_any_libc(int);\n" + body)
    library = folder / "a.so"
    subprocess.run([require("gcc"), "-shared", "-fPIC", "-O0", f"-I{HEADERS}", source, "-o", library], check=True)
    wheel = folder / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(library, "mosec_cy/a.so")
    return wheel


def test_symbols_of_glibc_and_of_the_interpreter(tmp_path: Path) -> None:
    wheel = extension(tmp_path, "PyObject *f(char *text, size_t n) { return PyLong_FromSize_t(strnlen(text, n)); }")
    check_symbols(wheel, MACHINE)
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"
    with pytest.raises(SystemExit, match=f"mosec_cy/a.so is for .*, not {other}"):
        check_symbols(wheel, other)


def test_function_that_an_old_glibc_lacks(tmp_path: Path) -> None:
    wheel = extension(tmp_path, "int f(int n) { return not_in_any_libc(n); }")
    with pytest.raises(SystemExit, match=r"mosec_cy/a.so needs \['not_in_any_libc'\]"):
        check_symbols(wheel, MACHINE)


def test_headers_fit_their_own_machine(tmp_path: Path) -> None:
    headers, python = find_headers([], [])[VERSION]
    assert header_version(headers) == VERSION
    assert must(python, "-c", "import sys; print(*sys.version_info[:2], sep='.')").strip() == VERSION
    check_headers(stage_headers(headers, MACHINE, tmp_path / "staged"), require("gcc"), tmp_path)


def test_headers_of_another_machine(tmp_path: Path) -> None:
    staged = stage_headers(HEADERS, MACHINE, tmp_path / "staged")
    config = staged / "pyconfig.h"
    config.write_text(config.read_text() + "\n#undef SIZEOF_WCHAR_T\n#define SIZEOF_WCHAR_T 2\n")
    with pytest.raises(SystemExit, match="do not fit the target of .*gcc(.|\n)*SIZEOF_WCHAR_T"):
        check_headers(staged, require("gcc"), tmp_path)


def debian(folder: Path, machine: str) -> Path:
    """Headers laid out as Debian does it, with the real pyconfig.h for one machine."""
    real = stage_headers(HEADERS, MACHINE, folder / "real")
    headers, place = folder / "include/python3.99", folder / f"include/{machine}-linux-gnu/python3.99"
    headers.mkdir(parents=True)
    place.mkdir(parents=True)
    (headers / "pyconfig.h").write_text(
        "".join(f"#include <{m}-linux-gnu/python3.99/pyconfig.h>\n" for m in ("x86_64", "aarch64"))
    )
    (place / "pyconfig.h").write_text((real / "pyconfig.h").read_text() + f"/* of {machine} */\n")
    return headers


def test_headers_of_debian(tmp_path: Path) -> None:
    headers = debian(tmp_path, MACHINE)
    for machine in ("x86_64", "aarch64"):  # for want of the other's, this machine's serves
        staged = stage_headers(headers, machine, tmp_path / machine)
        assert (staged / "pyconfig.h").read_text().endswith(f"/* of {MACHINE} */\n")


def test_headers_of_debian_that_are_not_whole(tmp_path: Path) -> None:
    headers = debian(tmp_path, "riscv64")
    with pytest.raises(SystemExit, match="pyconfig.h refers to .*, which is not there"):
        stage_headers(headers, "aarch64", tmp_path / "staged")


@pytest.mark.parametrize("macro", ["Py_GIL_DISABLED", "Py_DEBUG"])
def test_headers_of_another_kind_of_build(tmp_path: Path, macro: str) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include/pyconfig.h").write_text(f"#define SIZEOF_LONG 8\n#define {macro} 1\n")
    with pytest.raises(SystemExit, match="free-threaded or debug build"):
        stage_headers(tmp_path / "include", MACHINE, tmp_path / "staged")


def test_headers_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--headers .*: there is no Python.h"):
        find_headers([], [tmp_path])
    with pytest.raises(SystemExit, match="--python .*: needs CPython"):
        find_headers([Path("/bin/false")], [])
