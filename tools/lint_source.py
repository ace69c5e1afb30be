"""Rules of the house that no general linter knows. Prints each breach as `file:line: what`, exits 1 if there is one.

Sizes of functions, no generated files in version control, no `DEF` or textual `include`, C functions that cannot raise
and need no GIL (or say how they raise), atomic stores to shared memory, at each atomic operation a comment that names
its partner, and no word that docs/glossary.md has another one for.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_FUNCTION = 60
GENERATED = {".c", ".so", ".o", ".pyc", ".whl", ".html"}
SKIPPED = {"build", "dist", "site", ".git", "__pycache__"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
ATOMIC = re.compile(
    r"\b(?:(?:load|store|add_fetch|fetch_or|fetch_and|exchange|cas)\w*_u(?:32|64)|fence_\w+|__atomic_\w+)\("
)
NAME_AFTER = re.compile(r"\b(?:in|with|and)\s+`?([A-Za-z_][\w.]*)")
MEMBER = re.compile(r"(?<![\w.])[A-Z]\w*\.\w+")
NAME_LIKE = re.compile(r"(?<![\w.`])(?:_?[A-Za-z]+_\w+|[A-Z]\w*\.\w+)")
PLAIN_STORE = re.compile(
    r"\b(?:shared|statistics|bell|memory(?=\.head|\.tail))\.\w+(?:\.\w+|\[.*?\])*\s*[-+*/|&^]?=(?!=)"
)
OUTDATED = re.compile(r"^\s*(DEF\s+\w+\s*=|include\s+['\"])")
C_FUNCTION = re.compile(r"cdef\s+(?!class\b|struct\b|enum\b|union\b|extern\b|packed\b|readonly\b|public\b)[^=\n]*\(")
# A C function that handles Python objects needs the GIL and may raise.
WITH_OBJECTS = re.compile(r"\b(object|bytes|bytearray|str|dict|list|tuple|memoryview|set)\b")

# Words with no other meaning in this project, and what docs/glossary.md says instead. Where they are looked for:
WORDED = {"src_pyx", "mosec_cy", "docs", "tests"}
WORDS = {
    r"spoil\w*": "corrupt",
    r"rehears\w*": "dry run",
    r"vigils?": "progress watch",
    r"farewells?": "reject pending",
    r"rous(?:e|es|ed|ing)|stir(?:s|red|ring)?": "notify",
    r"hand(?:s|ed|ing)?[-_ ]?(?:outs?|ahead)": "dispatch, dispatch ahead",
    r"(?:take|taken|taking|took)[-_ ]back": "reclaim",
    r"bur(?:y|ied|ies|ying)": "fold exited",
    r"books": "accounting",
    r"orphan(?:s|ed)?": "child without a parent; the child reaper reaps it",
    r"(?:Worker|Model)Row|row_(?:up|down|drain|dead|ready|started|wake)|rows_dispatch": "worker slot",
    r"HANDED": "DISPATCHED",
    r"Verdict": "Decision",
}
# As a word, or as a part of a name; in any case unless the table gives it capitals.
BANNED = {
    re.compile(rf"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))(?{'i' if word.islower() else ''}:{word})(?![a-z])"): instead
    for word, instead in WORDS.items()
}

Breach = tuple[int, str]


def tracked_files() -> list[Path]:
    """Files that are, or would be, under version control; all files where there is none (an unpacked sdist)."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if git.returncode == 0 and git.stdout:
        return [ROOT / name for name in git.stdout.split("\0") if name and (ROOT / name).is_file()]
    files = (path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in GENERATED)
    return [path for path in files if not any(p in SKIPPED or p.startswith(".venv") for p in path.parts)]


def sizes(path: Path, lines: list[str]) -> Iterator[Breach]:
    for start, end, name in functions(path, lines):
        if end - start + 1 > MAX_FUNCTION:
            yield start, f"{name} has {end - start + 1} lines, at most {MAX_FUNCTION}"


def functions(path: Path, lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """First line, last line and name of each function."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.lineno, node.end_lineno or node.lineno, node.name
        return
    if path.suffix != ".pyx":
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r"(\s*)(?:c|cp)?def\s[^=]*?(\w+)\(", line)
        if match and not line.lstrip().startswith("cdef class"):
            yield number, last_line(lines, number, len(match[1])), match[2]


def last_line(lines: list[str], number: int, indent: int) -> int:
    """Last line of the block that begins at line `number` (1-based): all that follows and is indented deeper."""
    last, depth = number, 0
    for current in range(number, len(lines) + 1):
        line = lines[current - 1]
        if current > number and depth == 0 and line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        depth += line.count("(") - line.count(")")
        if line.strip():
            last = current
    return last


def cython_rules(path: Path, lines: list[str]) -> Iterator[Breach]:
    if path.suffix not in {".pyx", ".pxd"}:
        return
    for number, line in enumerate(lines, 1):
        if OUTDATED.match(line):
            yield number, "no DEF and no textual include"
        if line.startswith("cdef") and C_FUNCTION.match(line):
            signature = whole_signature(lines, number)
            says_how_it_fails = path.suffix == ".pyx" and re.search(r"\bexcept\b|\bnoexcept\b", signature)
            if "noexcept nogil" not in signature and not says_how_it_fails and not WITH_OBJECTS.search(signature):
                yield number, "a C function of the engine is `noexcept nogil`, or says how it raises"


def whole_signature(lines: list[str], number: int) -> str:
    """The declaration that begins at line `number` (1-based), up to its closing parenthesis and what follows it."""
    text, depth = "", 0
    for line in lines[number - 1 :]:
        code = line.partition("#")[0]
        text += code
        depth += code.count("(") - code.count(")")
        if depth <= 0:
            break
    return text


def atomics(path: Path, lines: list[str]) -> Iterator[Breach]:
    """Each use says order and partner on its line or above it; neighbouring uses may share one comment.

    What is not relaxed names a partner: after "in" or "with", a function or `Class.method` of the engine. No comment
    names one that does not exist.
    """
    if path.suffix != ".pyx":
        return
    known = engine_names() | names(lines)
    shared = ""
    for number, line in enumerate(lines, 1):
        code, _, comment = line.partition("#")
        uses = ATOMIC.findall(code)
        if not uses:
            shared = ""
            continue
        shared = comment or shared or " ".join(comment_above(lines, number))
        named = {name.rstrip(".") for name in NAME_AFTER.findall(shared)}
        unknown = {name for name in named | set(NAME_LIKE.findall(shared)) if re.search(r"[_.]", name)} - known
        if not shared:
            yield number, "an atomic operation without a comment that says its order and partner"
        elif unknown:
            yield number, f"a partner that is not in the sources: {', '.join(sorted(unknown))}"
        elif not named & known and not all("relaxed" in use for use in uses):
            yield number, "an atomic operation whose comment names no partner that is in the sources"


def comment_above(lines: list[str], number: int) -> list[str]:
    """The lines of the comment that ends above line `number` (1-based)."""
    first = number - 1
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return [line.strip().lstrip("# ") for line in lines[first : number - 1]]


@functools.cache
def engine_names() -> frozenset[str]:
    """Functions, and `Class.member` of classes and structures, of the engine."""
    found: set[str] = set()
    for path in sorted((ROOT / "src_pyx").rglob("*.p[yx][xd]")):
        found |= names(path.read_text(encoding="utf-8").splitlines())
    return frozenset(found)


def names(lines: list[str]) -> set[str]:
    """Functions, and `Class.member`, that these lines define or declare."""
    found, container = set(), ""
    for line in lines:
        code = line.partition("#")[0]
        if match := re.match(r"(?:cdef |cpdef |ctypedef )?(?:class|struct|union) (\w+)", code):
            container = match[1]
        elif match := re.match(r"(?:c|cp)?def\s[^=]*?(\w+)\(", code):
            container = ""
            found.add(match[1])
        elif container and re.match(r" {4}\S", code):
            found |= {f"{container}.{word}" for word in re.findall(r"\w+(?=\(|\[|,|\)\(|\s*$|\s*=)", code)}
    return found


def references(path: Path, lines: list[str]) -> Iterator[Breach]:
    """What a comment calls `Class.member`, of a class or structure of the engine, exists; for atomics see above."""
    if path.suffix not in {".pyx", ".pxd", ".pml", ".cpp", ".hpp"}:
        return
    known = engine_names() | names(lines)
    owners = {name.partition(".")[0] for name in known if "." in name}
    explaining: set[int] = set()
    for number, line in enumerate(lines, 1):
        if ATOMIC.search(line.partition("#")[0]):
            explaining |= set(range(number - len(comment_above(lines, number)), number + 1))
    for number, line in enumerate(lines, 1):
        if number in explaining:
            continue
        for name in MEMBER.findall(line.partition("#")[2] if path.suffix in {".pyx", ".pxd"} else line):
            if name not in known and name.partition(".")[0] in owners:
                yield number, f"{name} is not in the sources"


def plain_stores(path: Path, lines: list[str]) -> Iterator[Breach]:
    """What other processes read at any time is stored by an atomic, be it a relaxed one."""
    if path.suffix != ".pyx":
        return
    for number, line in enumerate(lines, 1):
        if PLAIN_STORE.search(line.partition("#")[0]):
            yield number, "a plain store to shared memory: use an atomic one, store_relaxed_u64 at least"


def unfinished(path: Path, lines: list[str]) -> Iterator[Breach]:
    for number, line in enumerate(lines, 1):
        if match := UNFINISHED.search(line):
            yield number, f"{match[0]}: finish it, or open an issue"


def banned_words(path: Path, lines: list[str], root: Path) -> Iterator[Breach]:
    if not path.is_relative_to(root) or path.relative_to(root).parts[0] not in WORDED:
        return
    for number, line in enumerate(lines, 1):
        for banned, instead in BANNED.items():
            if match := banned.search(line):
                yield number, f"{match[0]!r}: the glossary says {instead}"


def breaches(path: Path, root: Path = ROOT) -> Iterator[Breach]:
    if path.suffix in {".py", ".pyx", ".pxd", ".md"}:
        yield from banned_words(path, path.read_text(encoding="utf-8").splitlines(), root)
    if path.suffix in GENERATED and "docs" not in path.parts:
        yield 1, "a generated file in version control"
    elif path.suffix in {".py", ".pyx", ".pxd", ".pml", ".cpp", ".hpp"}:
        lines = path.read_text(encoding="utf-8").splitlines()
        for rule in (sizes, cython_rules, atomics, plain_stores, references, unfinished):
            yield from rule(path, lines)


def main() -> int:
    files = tracked_files()
    found = [f"{path.relative_to(ROOT)}:{line}: {what}" for path in files for line, what in breaches(path)]
    print("\n".join(found) or f"{len(files)} files keep the rules of the house")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
