"""Examples on models and frameworks that take minutes to install and to load: `make examples` runs them."""

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.examples.programs import running
from tests.service import Service

FOLDER = Path(__file__).parent
LOADING = 300.0  # s; how long a model may take to load on a machine that is busy
Run = Callable[..., Service]

# Tests leave nothing in /tmp. Torch keeps there what it compiles; ONNX Runtime, which Diffusers imports where it is
# installed, keeps there whom it reports on.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
_cache = tempfile.TemporaryDirectory()
atexit.register(_cache.cleanup)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _cache.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * LOADING))
            item.add_marker(pytest.mark.filterwarnings("default"))  # the frameworks warn of each other


@pytest.fixture(scope="module")
def run_example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Start the server of an example: `run_example(name, env)`. It serves until the module's tests are done."""
    with ExitStack() as services:

        def run(name: str, env: Mapping[str, str] | None = None) -> Service:
            offline = {"HF_HUB_OFFLINE": "1"}  # nothing is fetched: what a test needs, it has made
            directory = tmp_path_factory.mktemp(name)
            return services.enter_context(running(name, directory, {**offline, **(env or {})}, LOADING))

        yield run
