"""Imports of the Python package lead down, and what does not is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import layers
from tools.layers import CIMPORTS, breaches, engine_breaches


def package(root: Path, files: dict[str, str]) -> Path:
    """A package `p` of those files."""
    for name, text in {"__init__.py": "", **files}.items():
        path = root / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "p"


def test_this_package() -> None:
    assert breaches() == []


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("_process/main.py", "from p._master import child\n", "1: _process does not import _master"),
        ("_process/main.py", "import os\nfrom p._master.child import start\n", "2: _process does not import _master"),
        ("_process/main.py", "import p._master.child\n", "1: _process does not import _master"),
        ("_process/main.py", "from p import _master\n", "1: _process does not import _master"),
        ("_process/main.py", "def f():\n    from p._master import child\n", "2: _process does not import _master"),
        ("_process/main.py", "try:\n    import p._web.x\nfinally:\n    pass\n", "2: _process does not import _web"),
        ("_process/main.py", "from p._config import plan\n", "1: _process does not import _config"),
        ("_base/limits.py", "from p import _codecs\n", "1: _base does not import _codecs"),
        ("_codecs/json.py", "from p import log\n", "1: _codecs does not import log"),
        ("worker.py", "from p.mixin import redis\n", "1: worker does not import mixin"),
        ("worker.py", "from p import runtime\n", "1: worker does not import runtime"),
        ("_master/core.py", "from p import server\n", "1: _master does not import server"),
        ("_master/core.py", "from p import Worker\n", "1: _master does not ask the package for Worker, but a module"),
        ("helpers.py", "", "1: helpers is on no floor: give it one in tools/layers.py"),
        ("_new/x.py", "", "1: _new is on no floor: give it one in tools/layers.py"),
    ],
)
def test_what_leads_up_is_found(tmp_path: Path, name: str, text: str, what: str) -> None:
    folder = package(tmp_path, {"_master/child.py": "", "mixin/redis.py": "", "server.py": "", name: text})
    assert breaches(folder) == [f"{folder / name}:{what}"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server.py", "from p import log\nfrom p._master import child\n"),
        (
            "_master/core.py",
            "from p import __version__\nfrom p._web import routes\nfrom p._engine import core\n",
        ),
        ("_base/mistakes.py", "from p import errors, log\n"),
        ("log.py", "from p._base.output import STDERR\n"),
        ("mixin/redis.py", "from p.worker import Worker\n"),
        ("_process/main.py", "from p._process import loop\n"),
        ("_codecs/marks.py", "if TYPE_CHECKING:\n    from p.worker import Worker\n"),
        ("__init__.py", "def f():\n    from p import server\n"),
    ],
)
def test_what_leads_down_is_let_through(tmp_path: Path, name: str, text: str) -> None:
    files = dict.fromkeys(["_base/output.py", "_process/loop.py", "_master/child.py", "_web/routes.py"], "")
    assert breaches(package(tmp_path, {**files, name: text})) == []


def test_a_cycle_within_a_room_is_found(tmp_path: Path) -> None:
    files = {
        "_base/a.py": "from p._base import b\n",
        "_base/b.py": "from p._base.c import x\n",
        "_base/c.py": "import p._base.a\n",
    }
    assert breaches(package(tmp_path, files)) == ["an import cycle: _base.a -> _base.b -> _base.c -> _base.a"]


def test_what_is_imported_later_makes_no_cycle(tmp_path: Path) -> None:
    files = {"_base/a.py": "from p._base import b\n", "_base/b.py": "def f():\n    from p._base import a\n"}
    assert breaches(package(tmp_path, files)) == []


def test_floors_fit_on_one_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "FLOORS", (*layers.FLOORS, {"roof": ()}))
    assert breaches(package(tmp_path, {})) == ["6 floors, at most 5"]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("batcher.pyx", "from mosec_cy._engine.dispatch cimport task_fail\n", "batcher does not cimport dispatch"),
        ("ring.pxd", "\nfrom mosec_cy._engine.pool cimport Pool\n", "ring does not cimport pool"),
        ("core.pyx", "from mosec_cy._engine.worker cimport (\n    Channel,\n)\n", "core does not cimport worker"),
        ("worker.pyx", "def f():\n    from mosec_cy._engine.core import run_core\n", "worker does not cimport core"),
        ("http_request.pyx", "cimport mosec_cy._engine.linux\n", "http_request does not cimport linux"),
        ("http2.pyx", "", "http2 has no place"),
    ],
)
def test_a_cimport_that_leads_up_is_found(tmp_path: Path, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    (found,) = engine_breaches(tmp_path)
    assert what in found


def test_cimports_that_lead_down(tmp_path: Path) -> None:
    (tmp_path / "core.pyx").write_text(
        "from mosec_cy._engine.http1 cimport http1_open\n# from mosec_cy._engine.worker\n"
    )
    assert engine_breaches(tmp_path) == []


def test_the_engine() -> None:
    assert engine_breaches() == []
    seen: set[str] = set()
    for module, below in CIMPORTS.items():
        assert set(below) <= seen, f"{module} is listed before what it is built on"
        seen.add(module)
