"""Programs that some tests need and a machine may lack."""

import os
import shutil
from pathlib import Path

import pytest


def require(name: str) -> str:
    """The path of a program; skips the test where it is missing (fails it with MOSEC_CY_REQUIRE_TOOLS=1)."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs the program {name!r}")
    return path


def require_header(name: str) -> None:
    """As `require`, for a C or C++ header of the system, such as "relacy/relacy.hpp"."""
    if not Path("/usr/include", name).is_file():
        pytest.skip(f"needs the header {name!r}")


def environment() -> dict[str, str]:
    """For programs of others: without the sanitizers' runtime that a sanitized build has preloaded."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
