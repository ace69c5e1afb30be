"""What the machine and the container allow."""

from pathlib import Path

import pytest

from mosec_cy._base import limits


def group(root: Path, path: str, name: str, text: str) -> None:
    directory = root / path
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)


def found(root: Path, lines: str) -> list[int]:
    proc = root / "cgroup-of-process"
    proc.write_text(lines)
    return sorted(limits._control_group_limits(root, proc))


def test_version_2_and_its_parents(tmp_path: Path) -> None:
    group(tmp_path, "a/b", "memory.max", "1000\n")
    group(tmp_path, "a", "memory.max", "2000\n")
    group(tmp_path, "", "memory.max", "max\n")
    assert found(tmp_path, "0::/a/b\n") == [1000, 2000]


def test_version_1(tmp_path: Path) -> None:
    group(tmp_path, "memory/docker/x", "memory.limit_in_bytes", "3000\n")
    assert found(tmp_path, "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n") == [3000]


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    group(tmp_path, "", "memory.max", "4000\n")
    assert found(tmp_path, "0::/seen/only/from/outside\n") == [4000]


def test_no_control_groups(tmp_path: Path) -> None:
    assert list(limits._control_group_limits(tmp_path, tmp_path / "missing")) == []


@pytest.mark.parametrize("release", ["4.18.0-553.el8", "5.9", "5.9.16-generic"])
def test_old_kernels_are_refused(release: str) -> None:
    with pytest.raises(RuntimeError, match=r"needs Linux 5\.10 or newer, this is"):
        limits.check_kernel(release)


@pytest.mark.parametrize("release", ["5.10.0", "5.15.153-microsoft-standard", "6.1-rc1", "6.18", "strange"])
def test_others_are_not(release: str) -> None:
    limits.check_kernel(release)
