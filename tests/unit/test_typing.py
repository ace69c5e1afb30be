"""User code type-checks: strictly, by mypy and by pyright.

Programs in `typed/` are read, not run. A line that ends with `# wrong` is a mistake that both have to report; nothing
else may be reported. To cover more of the public interface, add a program there.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import environment

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted((Path(__file__).parent / "typed").glob("*.py"))
# As for an installed package: what is said about the package's own modules is not the user's concern.
MYPY = f"""
[mypy]
strict = true
mypy_path = {ROOT}
cache_dir = /dev/null

[mypy-mosec_cy.*]
follow_imports = silent
"""


def mistakes() -> set[tuple[str, int]]:
    lines = [(path, enumerate(path.read_text().splitlines(), 1)) for path in PROGRAMS]
    return {(path.name, number) for path, numbered in lines for number, line in numbered if line.endswith("# wrong")}


def checker(name: str, *arguments: str) -> str:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")
    command = [sys.executable, "-m", name, *arguments, *map(str, PROGRAMS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if name == "pyright" and done.returncode not in (0, 1):  # it fetches itself when it runs for the first time
        pytest.skip(f"pyright cannot run here: {done.stdout}{done.stderr}")
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)
    said = checker("mypy", "--config-file", str(config), "--output", "json")
    reports = [json.loads(line) for line in said.splitlines()]
    found = {(Path(report["file"]).name, report["line"]) for report in reports if report["severity"] == "error"}
    assert found == mistakes(), said


def test_pyright(tmp_path: Path) -> None:
    config = tmp_path / "pyrightconfig.json"
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "include": [str(path) for path in PROGRAMS]}
    config.write_text(json.dumps(settings))
    said = checker("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config))
    reports = json.loads(said)["generalDiagnostics"]
    found = {(Path(report["file"]).name, report["range"]["start"]["line"] + 1) for report in reports}
    assert found == mistakes(), said
