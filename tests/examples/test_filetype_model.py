"""The model behind the file-type service, without the service."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.examples.sample_files import SAMPLES

pytestmark = pytest.mark.skipif(find_spec("magika") is None, reason="needs the extra 'examples'")
FOLDER = Path(__file__).parents[2] / "examples" / "filetype"

SHORT_OR_BLANK = [b"", b"a", b"  \n", b"\xff\xfe", b" " * 5000, b"abc" + b" " * 5000, b" " * 4090 + b"hello " * 9]


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    try:
        from filetype_model import FileTypeModel

        yield FileTypeModel(threads=1)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [make(tmp_path_factory.mktemp("files")) for make, _ in SAMPLES.values()] + SHORT_OR_BLANK


def test_agrees_with_the_package_that_the_model_comes_from(model: Any, files: list[bytes]) -> None:
    from magika import Magika  # after the model, which switches its telemetry off

    reference = Magika()
    for data, ours in zip(files, model.classify([model.prepare(data) for data in files]), strict=True):
        theirs = reference.identify_bytes(data)
        assert (ours["label"], ours["mime_type"]) == (str(theirs.output.label), theirs.output.mime_type)
        assert ours["score"] == pytest.approx(theirs.score, abs=1e-3)


def test_a_batch_is_one_run_of_the_model(model: Any, files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        """The real session; remembers the shapes that went in."""

        def __init__(self, session: Any) -> None:
            self.session = session
            self.shapes: list[tuple[int, ...]] = []

        def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> Any:
            self.shapes.append(inputs["bytes"].shape)
            return self.session.run(outputs, inputs)

    counted = Counted(model.session)
    monkeypatch.setattr(model, "session", counted)
    assert len(model.classify([model.prepare(data) for data in files])) == len(files)
    short = sum(isinstance(model.prepare(data), dict) for data in files)
    assert short >= 5
    assert counted.shapes == [(len(files) - short, 2048)]


def test_of_a_large_file_only_the_ends_count(model: Any) -> None:
    python = SAMPLES["python"][0](Path())
    middle = bytes(5_000_000)
    padded = memoryview(python[:4096] + middle + python[-4096:])
    assert np.array_equal(model.prepare(padded), model.prepare(python))
