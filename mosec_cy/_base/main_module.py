"""The module `__main__` of the user's program: spawned workers import it under another name, as multiprocessing does.

Beyond that, the `__main__` of a package (`python -m package`), a directory or a zip file is imported too, where a
worker class is in it.
"""

from __future__ import annotations

import runpy
import sys
import types
from multiprocessing import process, spawn
from pathlib import Path
from typing import Literal, NamedTuple

_NAME = "__mp_main__"  # what multiprocessing calls it in its children: programs ask for it


class Program(NamedTuple):
    """`name` of a module, or `path` of a script, a directory or a zip file."""

    kind: Literal["name", "path"]
    where: str


def locate() -> Program | None:
    """What to import for `__main__`; None: it names no file, as that of `python -c` or a notebook."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        return Program("name", spec.name)
    if not isinstance(file, str):
        return None
    path = Path(process.ORIGINAL_DIR or "", file)  # type: ignore[attr-defined]
    if spec is not None:
        return Program("path", str(path.parent))  # what holds `__main__.py`
    return Program("path", str(path))


def needed_for(worker: type) -> Program | None:
    """What a worker process imports before it looks up the class."""
    program = locate()
    if program is None or worker.__module__ == "__main__":
        return program
    main = sys.modules["__main__"]
    # By convention `__main__.py` does its work unasked. ipython's script did, too.
    if getattr(main, "__spec__", None) is None:
        script = Path(program.where)
        return program if script.is_file() and script.stem != "ipython" else None
    return None if program.kind == "path" or program.where.endswith(".__main__") else program


def can_be_imported(worker: type) -> bool:
    """False for a class in `__main__` that no file has: it was typed in, or came with `python -c`."""
    if worker.__module__ != "__main__":
        return True
    program = locate()
    if program is None or getattr(sys.modules["__main__"], "__spec__", None) is not None:
        return program is not None
    sources = [thing.__code__.co_filename for thing in vars(worker).values() if isinstance(thing, types.FunctionType)]
    return Path(program.where).is_file() and (not sources or any(Path(source).is_file() for source in sources))


def load(program: Program) -> None:
    """Import it, and have both `__main__` and `__mp_main__` mean it."""
    spawn.old_main_modules.append(sys.modules["__main__"])
    main = types.ModuleType(_NAME)
    if program.kind == "name":
        content = runpy.run_module(program.where, run_name=_NAME, alter_sys=True)
    else:
        content = runpy.run_path(program.where, run_name=_NAME)
    main.__dict__.update(content)
    sys.modules["__main__"] = sys.modules[_NAME] = main
