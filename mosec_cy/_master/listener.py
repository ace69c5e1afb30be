"""The sockets that the service listens on: TCP by IPv4 or IPv6, or a unix socket."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

from mosec_cy.log import get_logger

_UNIX = "unix:"
_BACKLOG = 4096
# Where a name stands for an address that this machine has not, as `localhost` for ::1 where IPv6 is off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_log = get_logger()


class Listener:
    """Sockets bound to an address; `listen` opens the door, `close` also removes a unix socket's path."""

    def __init__(self, address: str, port: int) -> None:
        """Bind; raises OSError that names the address and the option to change."""
        self._path: str | None = None
        self._sockets: list[socket.socket] = []
        try:
            if address.startswith(_UNIX):
                self._bind_unix(address[len(_UNIX) :])
            else:
                self._bind_internet(address, port)
        except BaseException:
            self.close()
            raise

    @property
    def fds(self) -> list[int]:
        return [sock.fileno() for sock in self._sockets]

    @property
    def address(self) -> str:
        """Where to reach it: `host:port`, `[host]:port` or `unix:path`."""
        if self._path is not None:
            return _UNIX + self._path
        host, port = self._sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def listen(self) -> None:
        """Accept connections from now on. Raises OSError if another process began to meanwhile."""
        for sock in self._sockets:
            try:
                sock.listen(_BACKLOG)
            except OSError as error:
                raise _explained(error, self.address) from None

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        if self._path is not None:
            _remove(self._path)
            self._path = None

    def close_in_child(self) -> None:
        """Drop a forked copy: the path stays the parent's."""
        self._path = None
        self.close()

    def _bind_internet(self, address: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except socket.gaierror as error:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address!r}: {error.strerror} (--address)") from None
        missing: list[OSError] = []
        for family, kind, protocol, _, target in dict.fromkeys(found):
            try:
                # With port 0 the first socket is given one, and those of a name's other addresses follow it.
                sock = _bound(family, kind, protocol, (target[0], port, *target[2:]))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing.append(error)
                continue
            self._sockets.append(sock)
            port = sock.getsockname()[1]
        if not self._sockets:
            raise missing[0]
        for reason in missing:
            _log.warning("%s has several addresses, and is served without one: %s", address, reason.strerror)

    def _bind_unix(self, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(sock)
        try:
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                    raise
                _remove(path)
                sock.bind(path)
        except OSError as error:
            raise _explained(error, _UNIX + path) from None
        self._path = str(Path(path).absolute())
        sock.setblocking(False)


def _bound(family: int, kind: int, protocol: int, target: tuple[Any, ...]) -> socket.socket:
    host, port = target[:2]
    sock = None
    try:
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(target)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise _explained(error, f"{host}:{port}") from None
    return sock


def _explained(error: OSError, where: str) -> OSError:
    if error.errno == errno.EADDRINUSE:
        return OSError(error.errno, f"{where} is in use: choose a free one with --port or --address")
    if error.errno == errno.EADDRNOTAVAIL:
        return OSError(
            error.errno, f"{where} is no address of this machine: choose one that is with --address, or 0.0.0.0 for all"
        )
    if error.errno == errno.EACCES and not where.startswith(_UNIX):
        return OSError(error.errno, f"{where} needs a right that this process lacks: choose a --port above 1023")
    return OSError(error.errno, f"cannot listen on {where}: {error.strerror} (--address, --port)")


def _is_left_over(path: str) -> bool:
    """It is the socket of a server that was killed: no process answers."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(path) == errno.ECONNREFUSED


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
