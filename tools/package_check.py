"""What a built package has to show: what is in it, what it needs of a system, and that it serves."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerSymSection
from elftools.elf.sections import SymbolTableSection

from tests.service import Service

SOURCES = {".pyx", ".pxd", ".pxi", ".c", ".h", ".o", ".pyc"}
INTERPRETER = ("Py", "_Py")  # its names have no versions
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
# A clean environment has neither Cython nor a compiler to fall back on.
BARE = """
import importlib.util, shutil
assert importlib.util.find_spec("Cython") is None, "Cython is installed"
assert not any(map(shutil.which, ["cc", "gcc", "clang", "zig"])), "there is a compiler"
"""


def check_contents(wheel: Path) -> None:
    """Modules, extensions, `py.typed` and licences are in the wheel; sources, tests and tools are not.

    Raises:
        SystemExit: it is otherwise.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    unwanted = [
        name
        for name in names
        if Path(name).suffix in SOURCES or not (name.startswith("mosec_cy/") or ".dist-info/" in name)
    ]
    if unwanted:
        raise SystemExit(f"{wheel.name} should not hold {unwanted}")
    package = Path(__file__).resolve().parent.parent / "mosec_cy"
    modules = {f"mosec_cy/{path.relative_to(package)}" for path in package.rglob("*.py")}
    engine = {path.stem for path in package.parent.glob("src_pyx/mosec_cy/_engine/*.pyx")}
    built = {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    missing = [*sorted(modules - set(names)), *sorted(engine - built)]
    missing += [end for end in ("mosec_cy/py.typed", "/licenses/LICENSE") if not any(n.endswith(end) for n in names)]
    if missing:
        raise SystemExit(f"{wheel.name} lacks {missing}")


def check_symbols(wheel: Path, machine: str) -> None:
    """Each extension is for the machine, and takes only the old glibc's and the interpreter's symbols.

    A function that the old glibc lacks would be an undefined symbol without a version; `auditwheel` says nothing of it.

    Raises:
        SystemExit: it is otherwise.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".so"):
                elf = ELFFile(io.BytesIO(archive.read(name)))
                if elf["e_machine"] != MACHINES[machine]:
                    raise SystemExit(f"{wheel.name}: {name} is for {elf['e_machine']}, not {machine}")
                unknown = list(unversioned(elf))
                if unknown:
                    raise SystemExit(f"{wheel.name}: {name} needs {unknown}, which no old glibc has")


def unversioned(elf: ELFFile) -> Iterator[str]:
    """Names of undefined symbols that neither a versioned library nor the interpreter provides."""
    symbols = elf.get_section_by_name(".dynsym")
    versions = elf.get_section_by_name(".gnu.version")  # absent where no symbol at all has a version
    assert isinstance(symbols, SymbolTableSection) and isinstance(versions, GNUVerSymSection | None)
    for number, symbol in enumerate(symbols.iter_symbols()):
        versioned = versions is not None and isinstance(versions.get_symbol(number)["ndx"], int)
        weak = symbol["st_info"]["bind"] == "STB_WEAK"  # may be absent
        undefined = symbol["st_shndx"] == "SHN_UNDEF" and symbol.name and not weak
        if undefined and not versioned and not symbol.name.startswith(INTERPRETER):
            yield symbol.name


def check_runs(package: Path, python: str, script: Path) -> None:
    """Install a wheel or a source distribution in an environment of its own, serve the echo example, ask it.

    A wheel has to do without compiler and Cython. Dependencies come as wheels.

    Raises:
        AssertionError, SystemExit: it does not install, serve, or end as it should.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        must(python, "-m", "venv", str(folder / "venv"))
        binaries = folder / "venv/bin"
        wheel = package.suffix == ".whl"
        environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        environment["PATH"] = str(binaries) if wheel else f"{binaries}:{os.environ['PATH']}"
        pip = (str(binaries / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        must(*pip, *(["--only-binary", ":all:"] if wheel else []), str(package), environment=environment)
        if wheel:
            must(str(binaries / "python"), "-c", BARE, environment=environment)
        (folder / "service").mkdir()
        settings = {"PATH": environment["PATH"], "PYTHONPATH": ""}
        with Service(script, env=settings, directory=folder / "service", python=str(binaries / "python")) as service:
            answer = service.wait_ready().client().post("/inference", json={"x": 2})
            assert answer.json() == {"echo": {"x": 2}, "batch_size": 1}, answer.text


def must(*command: str, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
    """What a command prints.

    Raises:
        SystemExit: its status is not 0; the message holds all that it printed.
    """
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout
