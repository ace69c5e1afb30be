"""Puts a case's load on a running server and returns what was measured."""

import asyncio
import json
import resource
import subprocess
import tempfile
from pathlib import Path

from .cases import MEGABYTE, Bursts, Case, Idle, Wrk
from .peers import Server, ServerFailed
from .processes import cpu_seconds, machine_busy_seconds, memory, resident_bytes

SCRIPT = Path(__file__).parent / "post.lua"
WARM_UP_SECONDS = 1
ANSWER_SECONDS = 30


def measure(case: Case, server: Server, seconds: int) -> dict[str, float]:
    """Metrics of one run; `errors` counts requests that were not answered 2xx."""
    check(case, server.wait_ready(case.body, case.content_type))
    load = case.load
    if isinstance(load, Wrk):
        metrics = with_wrk(case, load, server, seconds)
    elif isinstance(load, Bursts):
        metrics = asyncio.run(with_bursts(case, load, server))
    else:
        metrics = asyncio.run(with_idle_connections(case, load, server))
    check(case, server.post(case.body, case.content_type))
    return metrics


def check(case: Case, answer: bytes) -> None:
    if not case.accepts(answer):
        raise ServerFailed(f"wrong answer in {case.name}: {answer[:200]!r}")


def with_wrk(case: Case, load: Wrk, server: Server, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile(prefix="bench-body-") as body:
        body.write(case.body)
        body.flush()
        wrk(server.url, load, WARM_UP_SECONDS, body.name, case.content_type)
        cpu, all_cpu, wrk_cpu = cpu_seconds(server.pid), machine_busy_seconds(), children_seconds()
        result = wrk(server.url, load, seconds, body.name, case.content_type)
        cpu = cpu_seconds(server.pid) - cpu
        foreign = machine_busy_seconds() - all_cpu - cpu - (children_seconds() - wrk_cpu)
    requests = result["requests"]
    if not requests:
        raise ServerFailed(f"no request was answered\n{server.log_tail()}")
    return {
        "rps": requests / result["seconds"],
        "cpu_us": cpu * 1e6 / requests,
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "rss_mb": resident_bytes(server.pid) / MEGABYTE,
        "foreign_cpu": max(0.0, foreign) / result["seconds"],
        "errors": result["non_2xx"] + result["socket_errors"] + result["timeouts"],
    }


def children_seconds() -> float:
    """CPU time of the load generators so far: children that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wrk(url: str, load: Wrk, seconds: int, body: str, content_type: str) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "-s", str(SCRIPT), url, "--", body, content_type]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
            return result
    raise RuntimeError(f"wrk printed no result:\n{output}")


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self.reader, self.writer, self.request = reader, writer, request

    @classmethod
    async def connect(cls, case: Case, server: Server) -> "Client":
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = (
            f"POST /inference HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: {case.content_type}\r\nContent-Length: {len(case.body)}\r\n\r\n"
        )
        return cls(reader, writer, head.encode() + case.body)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        return await asyncio.wait_for(self._read(), ANSWER_SECONDS)

    async def _read(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.lower().splitlines()
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        return int(status_line.split()[1]), await self.reader.readexactly(length)


async def with_bursts(case: Case, load: Bursts, server: Server) -> dict[str, float]:
    """Mean batch size that the workers saw: an item answers with the size of its batch."""
    clients = [await Client.connect(case, server) for _ in range(load.size)]
    cpu = cpu_seconds(server.pid)
    items, batches, errors = 0, 0.0, 0
    for _ in range(load.count):
        for client in clients:
            client.writer.write(client.request)
        for client in clients:
            status, body = await client.answer()
            if status != 200:
                errors += 1
                continue
            items += 1
            batches += 1 / int(json.loads(body))
    cpu = cpu_seconds(server.pid) - cpu
    for client in clients:
        client.writer.close()
    return {"mean_batch": items / batches if batches else 0.0, "cpu_us": cpu * 1e6 / max(items, 1), "errors": errors}


async def with_idle_connections(case: Case, load: Idle, server: Server) -> dict[str, float]:
    """Anonymous and file-backed memory of the HTTP process; the shared pool of payloads is apart."""
    core = server.core_pid()
    before = private_bytes(core)
    clients: list[Client] = []
    errors = 0
    for _ in range(load.connections):
        client = await Client.connect(case, server)
        clients.append(client)
        client.writer.write(client.request)
        status, _ = await client.answer()
        errors += status != 200
    after = private_bytes(core)
    for client in clients:
        client.writer.close()
    return {
        "core_mb": before / MEGABYTE,
        "idle_1000_mb": (after - before) / MEGABYTE,
        "rss_mb": resident_bytes(server.pid) / MEGABYTE,
        "errors": errors,
    }


def private_bytes(pid: int) -> int:
    values = memory(pid)
    return values["RssAnon"] + values["RssFile"]
