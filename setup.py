"""Build of the Cython engine: every `src_pyx/mosec_cy/_engine/X.pyx` becomes the extension `mosec_cy._engine.X`.

Build switches, read from the environment:

MOSEC_CY_DEBUG=1     assertions and counters on, no optimisation
MOSEC_CY_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer

`python setup.py check_engine` translates all of it with warnings and performance hints as errors. `python setup.py
build_drivers` builds `tests/drivers/X.pyx`, through which tests and benchmarks reach the engine's C functions; no wheel
has them.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SOURCES = Path("src_pyx/mosec_cy/_engine")
DRIVERS = Path("tests/drivers")
SWITCHES = ("MOSEC_CY_DEBUG", "MOSEC_CY_SANITIZE")
CORE_DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


def switched_on(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def flavour() -> str:
    """What the object files depend on besides the sources: the interpreter and the switches."""
    switches = [name.rpartition("_")[2].lower() for name in SWITCHES if switched_on(name)]
    return "-".join([sys.implementation.cache_tag or "python", *switches])


def flags() -> tuple[list[str], list[str]]:
    compile_args = ["-std=gnu11", "-fvisibility=hidden", "-fno-semantic-interposition", "-Wno-unused-function"]
    link_args: list[str] = []
    if switched_on("MOSEC_CY_DEBUG"):
        compile_args += ["-O0", "-g", "-DMOSEC_CY_DEBUG=1"]
    else:
        compile_args += ["-O3", "-g1"]
    if switched_on("MOSEC_CY_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
        compile_args += sanitize
        link_args += sanitize
    return compile_args, link_args


def extensions(sources: Path = SOURCES, package: str = "mosec_cy._engine") -> list[Extension]:
    compile_args, link_args = flags()
    return [
        Extension(f"{package}.{path.stem}", [str(path)], extra_compile_args=compile_args, extra_link_args=link_args)
        for path in sorted(sources.glob("*.pyx"))
    ]


def translate(modules: list[Extension], build_dir: str, force: bool = False) -> list[Extension]:
    from Cython.Build import cythonize  # metadata and sdist do without it

    translated: list[Extension] = cythonize(
        modules,
        include_path=["src_pyx"],
        build_dir=build_dir,
        compiler_directives=CORE_DIRECTIVES,
        show_all_warnings=False,
        force=force,
        quiet=True,
    )
    return translated


class BuildEngine(build_ext):
    """Translates Cython when extensions are built, so that asking for metadata costs nothing."""

    what = "engine"

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or len(os.sched_getaffinity(0))
        if self.inplace or self.editable_mode:
            self.build_temp = f"build/objects-{flavour()}"

    def run(self) -> None:
        record = ROOT / "build" / f"flavour-{self.what}-{sys.implementation.cache_tag}"
        if self.inplace or self.editable_mode:
            # The extensions of all flavours have one place and one name; their age says nothing of the switches.
            self.force = self.force or not record.exists() or record.read_text() != flavour()
        sources = {module.name: module.sources for module in translate(self.extensions, "build/cython")}
        for module in self.extensions:
            module.sources = sources[module.name]
        super().run()
        if self.inplace or self.editable_mode:
            record.parent.mkdir(exist_ok=True)
            record.write_text(flavour())


class BuildDrivers(BuildEngine):
    description = "build the drivers of the engine's tests, in place or into --build-lib"
    what = "drivers"

    def finalize_options(self) -> None:
        self.distribution.ext_modules = extensions(DRIVERS, "tests.drivers")
        self.inplace = self.build_lib is None
        super().finalize_options()


class CheckEngine(Command):
    description = "translate the Cython sources with warnings and performance hints as errors"
    user_options: list[tuple[str, str, str]] = []

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        from Cython.Compiler import Options

        Options.warning_errors = True
        said = io.StringIO()
        modules = extensions() + extensions(DRIVERS, "tests.drivers")
        try:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
                translate(modules, folder, force=True)
        except Exception as error:
            raise SystemExit(f"{said.getvalue()}\n{error}") from None
        if "performance hint" in said.getvalue():
            raise SystemExit(said.getvalue())
        print(f"cython -Werror: {len(modules)} modules, no warning, no performance hint")


os.chdir(ROOT)
setup(
    packages=find_packages(include=["mosec_cy", "mosec_cy.*"]),
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildEngine, "build_drivers": BuildDrivers, "check_engine": CheckEngine},
)
