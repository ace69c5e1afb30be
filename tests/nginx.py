"""A real nginx for tests, in front of a service and under a path of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools import environment, require
from tests.until import until

_CONFIG = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {address} reuseport;
        location {prefix}/ {{
            proxy_pass http://{upstream}/;
        }}
    }}
}}
"""


@contextmanager
def nginx(upstream: str, prefix: str, directory: Path) -> Iterator[str]:
    """Runs an nginx that takes `prefix` off and passes on to `upstream` (HOST:PORT); gives its own HOST:PORT."""
    program = require("nginx")
    directory.mkdir()
    with socket.socket() as holder:  # keeps the port free for nginx, which may share it
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        address = f"127.0.0.1:{port}"
        config = directory / "nginx.conf"
        config.write_text(_CONFIG.format(directory=directory, address=address, prefix=prefix, upstream=upstream))
        command = [program, "-e", "stderr", "-p", str(directory), "-c", str(config)]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
        try:
            _wait_listening(port, process, directory / "log")
            yield address
        finally:
            process.terminate()
            process.wait()
    assert process.returncode == 0, (directory / "log").read_text()


def _wait_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    def listens() -> bool:
        assert process.poll() is None, f"nginx has ended:\n{log.read_text()}"
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    until(listens, message=lambda: f"nginx does not listen:\n{log.read_text()}")
