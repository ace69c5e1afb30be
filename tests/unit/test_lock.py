"""requirements.lock holds what pyproject.toml asks for, on each Python, with hashes."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
MACHINES = ["x86_64", "aarch64"]
UNLOCKED = {"torch"}  # each machine's build of it is another file


def entries() -> list[tuple[Requirement, list[str]]]:
    """What is locked, each with its hashes."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(line.split(" --hash")[0]), re.findall(r"--hash=(\S+)", line)) for line in lines]


def wanted() -> Iterator[Requirement]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    for group in [*lists, *project["dependency-groups"].values()]:
        for line in group:
            if isinstance(line, str) and (requirement := Requirement(line)).name not in UNLOCKED | {"mosec_cy"}:
                yield requirement


def system(python: str, machine: str) -> dict[str, str]:
    full = f"{python}.99"
    names = {"platform_system": "Linux", "sys_platform": "linux", "os_name": "posix", "platform_machine": machine}
    return {**names, "python_version": python, "python_full_version": full, "platform_python_implementation": "CPython"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_entry_is_one_version_with_hashes() -> None:
    found = entries()
    assert len(found) > 100
    for requirement, hashes in found:
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_asked_for_is_locked(python: str, machine: str) -> None:
    here = system(python, machine)
    locked: dict[str, str] = {}
    for requirement, _ in entries():
        if requirement.marker is None or requirement.marker.evaluate(here):
            name = canonical(requirement.name)
            assert name not in locked, f"{name} is locked twice for {here}"
            locked[name] = str(requirement.specifier).removeprefix("==")
    asked = [r for r in wanted() if r.marker is None or r.marker.evaluate(here)]
    assert len(asked) > 20
    for requirement in asked:
        version = locked.get(canonical(requirement.name))
        assert version is not None, f"{requirement} is not locked: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, but {version} is locked"
