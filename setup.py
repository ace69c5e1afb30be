"""Build of the Cython engine: every `src_pyx/mosec_cy/X.pyx` becomes the extension `mosec_cy.X`.

Build switches, read from the environment: MOSEC_CY_DEBUG=1 (assertions, no optimisation),
MOSEC_CY_SANITIZE=1 (AddressSanitizer and UndefinedBehaviorSanitizer).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
SOURCES = Path("src_pyx/mosec_cy")
CORE_DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


def switched_on(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def flags() -> tuple[list[str], list[str]]:
    compile_args = ["-std=gnu11", "-fvisibility=hidden", "-fno-semantic-interposition", "-Wno-unused-function"]
    link_args: list[str] = []
    if switched_on("MOSEC_CY_DEBUG"):
        compile_args += ["-O0", "-g", "-DMOSEC_CY_DEBUG=1"]
    else:
        compile_args += ["-O3", "-g1"]
    if switched_on("MOSEC_CY_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
        compile_args += sanitize
        link_args += sanitize
    return compile_args, link_args


compile_args, link_args = flags()
os.chdir(ROOT)
extensions = [
    Extension(f"mosec_cy.{path.stem}", [str(path)], extra_compile_args=compile_args, extra_link_args=link_args)
    for path in sorted(SOURCES.glob("*.pyx"))
]
setup(
    packages=["mosec_cy", "mosec_cy.mixin"] if (ROOT / "mosec_cy/mixin").is_dir() else ["mosec_cy"],
    ext_modules=cythonize(
        extensions,
        include_path=["src_pyx"],
        build_dir="build/cython",
        compiler_directives=CORE_DIRECTIVES,
        show_all_warnings=False,
        nthreads=0,
    ),
)
