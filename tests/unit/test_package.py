"""What importing the package costs, and what it offers."""

import subprocess
import sys
from pathlib import Path

import pytest

import mosec_cy


def test_import_is_lazy() -> None:
    folder = Path(mosec_cy.__file__).parents[1]  # it may be installed; -S leaves that place out
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import mosec_cy; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "mosec_cy" in loaded
    assert not {"numpy", "msgspec", "msgpack", "prometheus_client", "logging", "typing"} & set(loaded)
    assert not [name for name in loaded if name.startswith("mosec_cy.")]


def test_a_server_loads_nothing_that_only_some_need() -> None:
    code = "import sys; import mosec_cy._master.supervisor; mosec_cy.Server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mosec_cy._master.supervisor" in loaded
    assert not {"numpy", "prometheus_client", "ssl"} & set(loaded)


def test_every_name_is_there() -> None:
    for name in mosec_cy.__all__:
        assert getattr(mosec_cy, name).__name__ == name
        assert name in dir(mosec_cy)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PlasmaMixin'"):
        mosec_cy.PlasmaMixin  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "mosec_cy.mixin.MsgpackMixin, mosec_cy.errors.ClientError, mosec_cy.Worker",
        "mosec_cy.errors.MosecError, mosec_cy.mixin.TypedJSONMixin",
        "mosec_cy.Server, mosec_cy.mixin, mosec_cy.errors",
        "mosec_cy.worker.Worker, mosec_cy.runtime.Runtime, mosec_cy.server.Server, mosec_cy.log.get_logger",
    ],
)
def test_modules_are_there_after_the_import_alone(code: str) -> None:
    subprocess.run([sys.executable, "-c", f"import mosec_cy; {code}"], check=True)


def test_modules_are_listed() -> None:
    assert {"errors", "mixin"} <= set(dir(mosec_cy))
