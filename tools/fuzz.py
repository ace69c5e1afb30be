"""`make fuzz`: coverage-guided fuzzing of the targets in tests/fuzz/guided, each in turn.

The engine is built once more into build/fuzz, by clang with coverage, address and undefined-behaviour instrumentation;
libFuzzer runs inside the interpreter and sees the coverage of the C code. What it finds interesting is kept in
build/fuzz/corpus; `--merge` moves the fewest inputs with the same coverage to tests/fuzz/corpus, where tests replay it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.guided.targets import TARGETS

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "fuzz"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
INSTRUMENTATION = (
    "-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
    " -fno-sanitize=pointer-overflow"  # Cython's calls add 0 to NULL where there are no arguments
)
LONGEST = 1024  # bytes of an input
PROGRESS = re.compile(r"#(\d+)\s+(INITED|DONE|pulse|NEW|REDUCE|RELOAD)\s+cov: (\d+) ft: (\d+) corp: (\d+)")


def build() -> Path:
    """Builds the instrumented engine and libFuzzer as a library; the latter's path."""
    if shutil.which("clang") is None:
        raise SystemExit("make fuzz needs clang with its runtime libraries (Debian: apt-get install clang)")
    environment = {**os.environ, "CC": "clang", "LDSHARED": "clang -shared", "CFLAGS": f"-g {INSTRUMENTATION}"}
    where = ["--build-base", str(BUILD), "--build-lib", str(BUILD / "lib")]
    for step in (["build", *where], ["build_drivers", "--build-lib", str(BUILD / "lib")]):
        subprocess.run([sys.executable, "setup.py", "--quiet", *step], cwd=ROOT, env=environment, check=True)
    library = BUILD / "libfuzzer.so"
    archive = f"-Wl,--whole-archive,{runtime('fuzzer_no_main')},--no-whole-archive"
    subprocess.run(["clang++", "-shared", archive, "-lpthread", "-o", str(library)], check=True)
    return library


def runtime(name: str) -> str:
    """The path of one of clang's runtime libraries."""
    machine = os.uname().machine
    suffix = "so" if name == "asan" else "a"
    command = ["clang", f"-print-file-name=libclang_rt.{name}-{machine}.{suffix}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def fuzzer(name: str, library: Path, *options: str) -> subprocess.Popen[str]:
    """Starts libFuzzer on a target."""
    environment = {
        **os.environ,
        # The sanitizer has empty hooks for coverage: libFuzzer's must be found before them.
        "LD_PRELOAD": f"{library} {runtime('asan')}",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:verify_asan_link_order=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": f"{BUILD / 'lib'}:{ROOT}",
        "PYTHONMALLOC": "malloc",  # so that the sanitizer sees the bounds of each object
        "PYTHONSAFEPATH": "1",  # the engine in the tree is not the instrumented one
    }
    command = [sys.executable, "-m", "tools.fuzz_target", name, str(library), *options]
    return subprocess.Popen(command, cwd=BUILD, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")


def watched(process: subprocess.Popen[str], log: Path) -> tuple[str, int]:
    """First and last state of a run in words, and its exit status. All it says goes to the log."""
    states = []
    assert process.stderr is not None
    with log.open("a") as file:
        for line in process.stderr:
            file.write(line)
            if found := PROGRESS.match(line):
                states.append(found.groups())
    status = process.wait()
    if not states:
        return "no run", status
    first, last = states[0], states[-1]
    return f"{last[0]} runs, coverage {first[2]} -> {last[2]}, features {first[3]} -> {last[3]}", status


def fuzz(name: str, library: Path, seconds: int) -> bool:
    """Fuzzes one target; False if something was found, which then lies in build/fuzz."""
    found, kept = BUILD / "corpus" / name, CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    kept.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=4096"]
    options += [f"-artifact_prefix={BUILD}/{name}-", "-print_final_stats=1", str(found), str(kept)]
    words = ROOT / "tests" / "fuzz" / "guided" / f"{name}.dict"
    if words.exists():
        options.insert(0, f"-dict={words}")
    log = BUILD / f"{name}.log"
    summary, status = watched(fuzzer(name, library, *options), log)
    print(f"{name}: {summary}" + ("" if status == 0 else f"; FOUND something, see {log}"), flush=True)
    return status == 0


def merge(name: str, library: Path) -> None:
    """Leaves in the repository the fewest inputs of both corpora with the same coverage."""
    fresh = BUILD / "merged" / name
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    kept = CORPUS / name
    sources = [str(path) for path in (kept, BUILD / "corpus" / name) if path.exists()]
    process = fuzzer(name, library, "-merge=1", "-use_counters=0", f"-max_len={LONGEST}", str(fresh), *sources)
    _, status = watched(process, BUILD / f"{name}.log")
    if status != 0:
        raise SystemExit(f"merging {name} failed: {BUILD / name}.log")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(fresh, kept)
    sizes = [path.stat().st_size for path in kept.iterdir()]
    print(f"{name}: {len(sizes)} inputs, {sum(sizes)} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="of fuzzing a target (default 60)")
    parser.add_argument("--merge", action="store_true", help="move what was found to tests/fuzz/corpus, minimised")
    parser.add_argument("--built", action="store_true", help="take the build that is there")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    library = BUILD / "libfuzzer.so" if options.built else build()
    targets = options.targets or list(TARGETS)
    if options.merge:
        for name in targets:
            merge(name, library)
        return 0
    sound = [fuzz(name, library, options.seconds) for name in targets]
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
