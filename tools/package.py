"""Builds the source distribution and the wheels into dist/, and tries out those that this machine can run.

    python -m tools.package [--python PATH]... [--headers DIR]... [--only TAG]...

All is built from the source distribution, unpacked elsewhere, so that what is missing in it shows. One interpreter
builds for all the others: of CPython a build needs only the headers, and the compiler (`ziglang`) is a cross compiler
that links against an old glibc of either machine. Headers are those of the interpreters that are found (on PATH,
or installed by pyenv) and the directories given. A wheel without headers to build it is skipped, and that is said.

The same source gives the same wheels, byte for byte, with the same interpreter and the same build packages: times are
those of the last commit, or SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.package_check import check_contents, check_runs, check_symbols, must
from tools.package_headers import VERSIONS, check_headers, find_headers, stage_headers

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 28)


@dataclass(frozen=True)
class Target:
    """What one wheel is for.

    Args:
        version: of CPython, such as "3.12".
        machine: as the kernel calls it: "x86_64" or "aarch64".
        headers: the directory of `Python.h`.
        python: an interpreter of that version to try the wheel with, "" if there is none here.
    """

    version: str
    machine: str
    headers: Path
    python: str

    @property
    def tag(self) -> str:
        """`cp312-aarch64`."""
        return f"{self.python_tag}-{self.machine}"

    @property
    def python_tag(self) -> str:
        return "cp" + self.version.replace(".", "")

    @property
    def compiler(self) -> str:
        triple = f"{self.machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
        return f"{sys.executable} -m ziglang cc -target {triple}"

    @property
    def environment(self) -> dict[str, str]:
        """For setuptools: the compiler, and names of extensions as the target's interpreter looks for them."""
        return {
            **os.environ,
            "CC": self.compiler,
            "LDSHARED": f"{self.compiler} -shared",
            "CFLAGS": f"-I{self.headers}",  # before the building interpreter's own
            "LDFLAGS": "-s",
            "SETUPTOOLS_EXT_SUFFIX": f".cpython-{self.python_tag[2:]}-{self.machine}-linux-gnu.so",
        }


def build_sdist(folder: Path) -> tuple[Path, Path]:
    """The source distribution in dist/, and where it is unpacked."""
    setup(ROOT, os.environ, "sdist", "--dist-dir", str(DIST))
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return sdist, unpacked


def setup(source: Path, environment: Mapping[str, str], *arguments: str) -> None:
    must(sys.executable, "setup.py", "--quiet", *arguments, environment=environment, folder=source)


def build_wheel(target: Target, source: Path, folder: Path) -> Path:
    """The wheel in dist/, with the platform tag that `auditwheel` finds it worthy of."""
    base = folder / target.tag
    place = ("--dist-dir", str(base / "dist"), "--plat-name", f"linux_{target.machine}")
    setup(source, target.environment, "build", "--build-base", str(base), "bdist_wheel", *place)
    (made,) = (base / "dist").glob("*.whl")
    # The building interpreter has put its own tags on it.
    plain = retagged(made, target.python_tag, f"linux_{target.machine}")
    report = must(sys.executable, "-m", "auditwheel", "show", "--json", str(plain))
    wheel = retagged(plain, target.python_tag, manylinux(report))
    return Path(shutil.move(wheel, DIST))


def manylinux(report: str) -> str:
    """The platform tag in a report of `auditwheel show --json`."""
    tag = str(json.loads(report)["overall_tag"])
    match = re.fullmatch(r"manylinux_(\d+)_(\d+)_\w+", tag)
    if match is None or (int(match[1]), int(match[2])) > GLIBC:
        raise SystemExit(f"auditwheel finds {tag}, not manylinux of glibc {GLIBC[0]}.{GLIBC[1]} or older:\n{report}")
    return tag


def retagged(wheel: Path, python: str, platform: str) -> Path:
    tags = ("--python-tag", python, "--abi-tag", python, "--platform-tag", platform)
    return wheel.parent / must(sys.executable, "-m", "wheel", "tags", "--remove", *tags, str(wheel)).strip()


def targets(options: argparse.Namespace, folder: Path) -> Iterator[Target]:
    found = find_headers(options.python, options.headers)
    for machine in MACHINES:
        for version in VERSIONS:
            tag = f"cp{version.replace('.', '')}-{machine}"
            if options.only and tag not in options.only:
                continue
            if version not in found:
                say(f"{tag}: skipped, no headers of Python {version} (--headers DIR, --python PATH)")
                continue
            headers, python = found[version]
            staged = stage_headers(headers, machine, folder / tag)
            yield Target(version, machine, staged, python if machine == os.uname().machine else "")


def path(text: str) -> Path:
    return Path(text).absolute()


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def commit_time() -> str:
    """Seconds since 1970 of the last commit; outside version control a fixed time, as old as archives can say."""
    log = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return log.stdout.strip() or "315532800"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make package", description="build and try the sdist and the wheels")
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--python", **several, type=path, metavar="PATH", help="a CPython to build for and try with")
    parser.add_argument("--headers", **several, type=path, metavar="DIR", help="a directory of Python.h")
    parser.add_argument("--only", **several, metavar="TAG", help="build this wheel, such as cp312-aarch64")
    options = parser.parse_args()
    os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time())
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # what is tried must not find the package of the source tree
        say("source distribution")
        sdist, source = build_sdist(folder / "source")
        wheels: list[tuple[Path, Target]] = []
        for target in targets(options, folder / "headers"):
            say(f"wheel {target.tag}")
            check_headers(target.headers, target.compiler, folder)
            wheel = build_wheel(target, source, folder / "build")
            check_contents(wheel)
            check_symbols(wheel, target.machine)
            wheels.append((wheel, target))
        say(f"{sdist.name}: installing and serving, with {sys.executable}")
        check_runs(sdist, sys.executable, source / "examples/echo.py")
        for wheel, target in wheels:
            if target.python:
                say(f"{wheel.name}: installing and serving, with {target.python}")
                check_runs(wheel, target.python, source / "examples/echo.py")
    print(f"\n{'built':9}{sdist.name}")
    for wheel, target in wheels:
        print(f"{'served' if target.python else 'built':9}{wheel.name}")


if __name__ == "__main__":
    main()
