"""The floors of the Python package and of the engine: imports and cimports lead down, and never round.

Prints each breach, exits 1 if there is one. What is imported for type checkers alone does not count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "mosec_cy"
# From the ground up. A room, which is a folder or a module, may import all that is on the floors below it, and of its
# own floor what stands beside its name.
FLOORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"_engine": (), "errors": (), "_base": ("errors", "log"), "log": ("_base",), "_codecs": ("errors",)},
    {"worker": (), "runtime": ("worker",), "mixin": ("worker",)},
    {"_config": (), "_process": ()},
    {"_web": ()},
    {"_master": (), "server": ("_master",)},
)
MOST_FLOORS = 5
# The package itself loads what is asked for by name; each part may import its version.
TOP = "__init__"

ENGINE = PACKAGE.parent / "src_pyx" / "mosec_cy" / "_engine"
# What each module of the engine may cimport: declarations; memory that processes share; HTTP as bytes, sockets and the
# scheduling of tasks, which know nothing of each other; core's way of a request, from the bottom up; a worker's side.
_SYSTEM = ("linux", "list", "scan")
_MEMORY = (*_SYSTEM, "ring", "pool", "segment")
_PURE = ("http_request", "http_response", "connection", "former", "batcher")
CIMPORTS: dict[str, tuple[str, ...]] = {
    "linux": (),
    "list": (),
    "scan": (),
    "ring": ("linux",),
    "former": ("linux",),
    "pool": ("linux", "ring"),
    "segment": ("linux", "ring", "pool", "former"),
    "http_request": ("scan",),
    "http_response": (),
    "connection": ("linux", "list", "ring"),
    "batcher": ("linux", "list", "ring", "former"),
    "dispatch": (*_MEMORY, "former", "batcher"),
    "service": (*_MEMORY, "former", "batcher", "dispatch", "http_request"),
    "http1": (*_MEMORY, *_PURE, "dispatch", "service"),
    "core": (*_MEMORY, *_PURE, "dispatch", "service", "http1"),
    "worker": (*_MEMORY, "http_response"),
    "process": (),
}
CIMPORT = re.compile(r"^\s*(?:from\s+mosec_cy\._engine\.(\w+)\s+c?import|c?import\s+mosec_cy\._engine\.(\w+))")

Import = tuple[int, str]  # line, and module below the package, with dots


def breaches(package: Path = PACKAGE) -> list[str]:
    """Each as `file:line: what`, or without a line what concerns several files."""
    files = {_module(package, path): path for path in sorted(package.rglob("*.py"))}
    found = [] if len(FLOORS) <= MOST_FLOORS else [f"{len(FLOORS)} floors, at most {MOST_FLOORS}"]
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        everywhere = list(_imports(tree, package.name, set(files), deep=True))
        found += [f"{path}:{line}: {what}" for line, what in _out_of_place(module, everywhere)]
        graph[module] = {other for _, other in _imports(tree, package.name, set(files), deep=False)} - {module}
    if cycle := _cycle(graph):
        found.append(f"an import cycle: {' -> '.join(cycle)}")
    return found


def engine_breaches(engine: Path = ENGINE) -> list[str]:
    """The same for cimports."""
    found = []
    for path in sorted([*engine.glob("*.pyx"), *engine.glob("*.pxd")]):
        if path.stem not in CIMPORTS:
            found.append(f"{path}:1: {path.stem} has no place among the modules of the engine: give it one in CIMPORTS")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = CIMPORT.match(line)
            other = match and (match[1] or match[2])
            if other and other not in CIMPORTS[path.stem]:
                found.append(f"{path}:{number}: {path.stem} does not cimport {other}")
    return found


def _module(package: Path, path: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST, package: str, modules: set[str], deep: bool) -> Iterator[Import]:
    """What is imported of the package; `deep`: in functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == package:
            where = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{where}.{alias.name}".lstrip(".")
                yield node.lineno, inner if not where or inner in modules else where
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{package}."):
                    yield node.lineno, alias.name.partition(".")[2]
        elif _is_for_type_checkers(node):
            assert isinstance(node, ast.If)
            for other in node.orelse:
                yield from _imports(ast.Module([other], []), package, modules, deep)
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(node, package, modules, deep)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _out_of_place(module: str, imports: list[Import]) -> Iterator[tuple[int, str]]:
    room = module.partition(".")[0]
    if room == TOP:
        return
    floor = _floor(room)
    if floor is None:
        yield 1, f"{room} is on no floor: give it one in tools/layers.py"
        return
    for line, other in imports:
        target = other.partition(".")[0]
        height = _floor(target)
        beside = target == room or target in FLOORS[floor][room]
        if height is None and not other.startswith("__"):
            yield line, f"{room} does not ask the package for {target}, but a module"
        elif height is not None and height >= floor and not beside:
            yield line, f"{room} does not import {target}"


def _floor(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next one, and the last the first; empty: there are none."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if cycle := walk(other, [*way, module]):
                return cycle
        done.add(module)
        return []

    for module in sorted(graph):
        if cycle := walk(module, []):
            return cycle
    return []


def main() -> int:
    found = [*breaches(), *engine_breaches()]
    print("\n".join(found) or "imports lead down")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
