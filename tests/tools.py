"""Programs that some tests need and a machine may lack."""

import os
import shutil

import pytest


def require(name: str) -> str:
    """The path of a program; skips the test where it is missing (fails it with MOSEC_CY_REQUIRE_TOOLS=1)."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs the program {name!r}")
    return path


def environment() -> dict[str, str]:
    """For programs of others: without the sanitizers' runtime that a sanitized build has preloaded."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
