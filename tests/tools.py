"""Programs that some tests need and a machine may lack.

`python3 -m tests.tools` prints the Debian packages of those that are missing; it needs nothing but Python.
"""

import os
import shutil
from pathlib import Path

# A program, or a file where it is not one, and the Debian package that has it.
PACKAGES = {
    "unshare": "util-linux",
    "curl": "curl",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "hey": "hey",
    "ab": "apache2-utils",
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "spin": "spin",
    "g++": "g++",
    "/usr/include/relacy/relacy.hpp": "relacy-dev",
}


def find(name: str) -> str | None:
    """The path of a program (also of one that is meant for administrators), or of a file; None where it is missing."""
    if name.startswith("/"):
        return name if Path(name).exists() else None
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def missing() -> list[str]:
    """Those of PACKAGES that this machine lacks."""
    return [name for name in PACKAGES if find(name) is None]


def notice() -> str | None:
    """What is missing and how to install it, in one line; None where nothing is."""
    lacking = missing()
    if not lacking:
        return None
    packages = " ".join(PACKAGES[name] for name in lacking)
    return f"tests that need {', '.join(lacking)} are skipped; to run them too: apt-get install {packages}"


def require(name: str) -> str:
    """The path of a program; skips the test where it is missing (fails it with MOSEC_CY_REQUIRE_TOOLS=1)."""
    path = find(name)
    if path is None:
        import pytest  # what asks for the packages' names may lack it

        pytest.skip(f"needs the program {name!r}")
    return path


def environment() -> dict[str, str]:
    """For programs of others: without the sanitizers' runtime that a sanitized build has preloaded."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


if __name__ == "__main__":
    print(*(PACKAGES[name] for name in missing()))
