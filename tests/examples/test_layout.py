"""Every example is listed, and comes with what examples/README.md says that each has."""

import re

import pytest

from tests.examples.programs import EXAMPLES

FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
LISTED = dict(re.findall(r"^\| \[(\S+?)\]\((\S+?)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", FOLDERS)
def test_listed_and_described(name: str) -> None:
    assert LISTED.get(name) == name
    assert (EXAMPLES / name / "README.md").read_text().startswith("# ")
