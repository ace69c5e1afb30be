"""Packages that come with an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_extra(name: str, needed_by: str) -> Any:
    """Import the package `name`, which the extra of the same name brings.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and something that it needs is not
            raise
        message = f'{needed_by} needs the package {name!r}: pip install "mosec_cy[{name}]"'
        raise ModuleNotFoundError(message, name=name) from error
