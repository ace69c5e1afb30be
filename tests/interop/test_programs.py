"""Each way to start a program: its workers find their class, or one error says what to do."""

from __future__ import annotations

import sys
import textwrap
import zipapp
from pathlib import Path

import pytest

from tests.programs import ECHO, echo
from tests.service import Serve, Service

MAIN = """
    {imports}
    from mosec_cy import Server, Worker

    class Model(Worker):
        def forward(self, data):
            return [said(data), __name__]

    if __name__ == "__main__":
        os.chdir("/")  # what it was started with is found all the same
        server = Server()
        server.append_worker(Model, start_method=sys.argv[1])
        server.run()
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same program as a package, a directory, a zip file, and a script."""
    folder = tmp_path_factory.mktemp("programs")
    for name, helper in (("package", "from .helper"), ("directory", "from helper")):
        (folder / name).mkdir()
        (folder / name / "helper.py").write_text("def said(data):\n    return data\n")
        main = textwrap.dedent(MAIN).format(imports=f"import os, sys\n{helper} import said")
        (folder / name / "__main__.py").write_text(main)
    (folder / "package/__init__.py").touch()
    zipapp.create_archive(folder / "directory", folder / "program.pyz")
    script = textwrap.dedent(MAIN).format(imports="import os, sys\nsaid = list")
    (folder / "a scrípt-1").write_text(script)
    (folder / "module.py").write_text(script)
    (folder / "link").symlink_to("a scrípt-1")
    (folder / "debugged").write_text(f"del __spec__  # as pdb does\n{script}")
    return folder


def served(service: Service, method: str) -> None:
    service.wait_ready()
    with service.client() as client:
        name = "__mp_main__" if method == "spawn" else "__main__"
        assert client.post("/inference", json=[1]).json() == [[1], name]


STARTS = ["-m package", "directory", "program.pyz", "-m module", "a scrípt-1", "link", "debugged"]


@pytest.mark.parametrize(("start", "method"), [*((start, "spawn") for start in STARTS), ("-m package", "fork")])
def test_it_serves(serve: Serve, programs: Path, start: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(programs)  # so that the paths are relative
    arguments = start.split() if start.startswith("-m ") else [start]
    served(serve(Path(arguments[0]), *arguments[1:], method), method)


TYPED_IN = textwrap.dedent(echo(worker="start_method=sys.argv[1]"))


def test_without_a_file_it_says_what_to_do(serve: Serve) -> None:
    service = serve(Path("-c"), "import sys\n" + TYPED_IN, "spawn")
    assert service.wait_end() == 1
    (error,) = [line for line in service.messages if line.startswith("worker Echo is defined in no file ")]
    assert "Traceback" not in service.output
    assert 'pass start_method="fork"' in error


def test_without_a_file_it_serves_copies(serve: Serve) -> None:
    service = serve(Path("-c"), "import sys\n" + TYPED_IN, "fork").wait_ready()
    with service.client() as client:
        assert client.post("/inference", json=[1]).json() == [1]


def test_a_class_that_an_import_does_not_make(serve: Serve) -> None:
    service = serve(
        """
        from mosec_cy import Server, Worker

        if __name__ == "__main__":
            class Hidden(Worker):
                def forward(self, data):
                    return data

            server = Server()
            server.append_worker(Hidden)
            server.run()
        """
    )
    assert service.wait_end() == 1
    service.wait_output("the worker class must be there when its module is imported")


def test_a_script_that_is_deleted_meanwhile(serve: Serve) -> None:
    service = serve(ECHO.replace("server.run()", "import os; os.unlink(__file__); server.run()"))
    assert service.wait_end() == 1
    service.wait_output("FileNotFoundError: .*service.py")


def test_a_frozen_program_is_refused(serve: Serve) -> None:
    service = serve(f"import sys; sys.frozen = True\n{textwrap.dedent(ECHO)}")
    assert service.wait_end() == 1
    (said,) = service.messages
    assert said.startswith("a service cannot run in a frozen program ")


def test_what_is_no_python_does_not_start_itself_for_ever(serve: Serve, tmp_path: Path) -> None:
    """As a program in which Python is embedded, or one frozen by a tool that does not say so."""
    program = tmp_path / "program"
    source = f"import sys; sys.executable = {str(program)!r}\n{textwrap.dedent(ECHO)}"
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(0o755)
    service = serve(program)
    assert service.wait_end() == 1
    assert service.output.count("was started as a process of a service, but is no Python") > 0
    service.wait_output("core ended 3 times before it ran: shutting down")


def test_no_python_is_known(serve: Serve) -> None:
    service = serve(f"import sys; sys.executable = ''\n{textwrap.dedent(ECHO)}")
    assert service.wait_end() == 1
    service.wait_output("sys.executable names no Python interpreter to start processes with")


def test_an_interpreter_that_multiprocessing_was_told(serve: Serve) -> None:
    embedded = "import sys; python = sys.executable; sys.frozen = True; sys.executable = '/nowhere'"
    told = "import multiprocessing; multiprocessing.set_executable(python)"
    service = serve(f"{embedded}\n{told}\n{textwrap.dedent(ECHO)}").wait_ready()
    with service.client() as client:
        assert client.post("/inference", json=[1]).json() == [1]
