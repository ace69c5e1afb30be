"""Starting a service: processes, their environment, readiness, and what goes wrong."""

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.programs import ECHO, echo
from tests.service import Serve

ABOUT = """
    import os, sys, threading
    from mosec_cy import Server, Worker, get_logger

    def meet(path, worker_id):
        # Waits until both replicas have come: a FIFO opens when it has both ends.
        os.close(os.open(path, os.O_WRONLY if worker_id == 1 else os.O_RDONLY))

    SEEN_AT_IMPORT = os.environ.get("REPLICA")
    STATE = "as imported"

    class About(Worker):
        def __init__(self):
            self.at_init = [self.stage, self.worker_id, self.max_batch_size]

        def forward(self, data):
            get_logger().debug("forward")
            if len(sys.argv) > 3:
                meet(sys.argv[3], self.worker_id)
            return {
                "at_init": self.at_init,
                "env": [SEEN_AT_IMPORT, os.environ.get("REPLICA")],
                "state": STATE,
                "argv": sys.argv[1:],
                "threads": threading.active_count(),
                "pid": os.getpid(),
                "cwd": os.getcwd(),
            }

    if __name__ == "__main__":
        STATE = "as changed by main"
        server = Server()
        replicas = [{"REPLICA": "one"}, {"REPLICA": "two"}]
        server.append_worker(About, num=2, env=replicas, start_method=sys.argv[1])
        server.run()
"""


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_replicas_and_their_environment(serve: Serve, start_method: str, tmp_path: Path) -> None:
    place = tmp_path / "meeting"
    os.mkfifo(place)
    service = serve(ABOUT, start_method, "--model", str(place)).wait_ready()
    for replica in (1, 2):
        service.wait_output(f"<About_1.{replica}> ready")
    with service.client() as client, ThreadPoolExecutor(2) as pool:
        # Each holds its replica until the other one is in `forward` as well.
        answers = [answer.json() for answer in pool.map(lambda _: client.post("/inference", json={}), range(2))]
    seen = {about["at_init"][1]: about for about in answers}
    for replica, name in ((1, "one"), (2, "two")):
        about = seen[replica]
        assert about["at_init"] == ["About_1", replica, 1]
        assert about["pid"] in service.pids(f"mosec_cy: About_1 [{replica}]")
        assert about["env"][1] == name
        assert about["env"][0] == (name if start_method == "spawn" else None)
        assert about["state"] == ("as imported" if start_method == "spawn" else "as changed by main")
        assert about["argv"][1:3] == ["--model", str(place)]
        assert about["threads"] == 2  # this one, and the one that answers the master
        assert about["cwd"] == str(Path.cwd())


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_processes_hold_only_what_is_theirs(serve: Serve, start_method: str) -> None:
    service = serve(ABOUT, start_method).wait_ready()
    service.wait_output("<About_1.1> ready")
    service.wait_output("<About_1.2> ready")
    (master,) = service.pids("mosec_cy: master")
    core = service.wait_process("mosec_cy: core")
    given = set(service.descriptors(service.process.pid).values())
    listening = f"socket:[{_inode_of_listener(service.port)}]"
    assert listening in given
    assert listening in service.descriptors(core).values()
    for worker in service.pids("mosec_cy: About_1"):
        held = list(service.descriptors(worker).values())
        assert [name for name in held if name.startswith("/memfd:")] == ["/memfd:mosec_cy (deleted)"]
        assert held.count("anon_inode:[eventfd]") == 1
        assert sum(name.startswith("socket:") for name in held) == 1
        assert listening not in held
        assert not {"anon_inode:[pidfd]", "anon_inode:[eventpoll]"} & set(held)
    assert master == service.process.pid
    service.assert_nothing_named()


def _inode_of_listener(port: int) -> str:
    listen = "0A"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == listen:
            return fields[9]
    raise AssertionError(f"nobody listens on {port}")


def test_the_door_is_shut_until_each_stage_is_ready(serve: Serve, tmp_path: Path) -> None:
    source = """
        import os, sys
        from mosec_cy import Server, Worker, get_logger

        class Quick(Worker):
            def forward(self, data):
                return data

        class Slow(Worker):
            example = "warm"

            def __init__(self):
                get_logger().info("loading")
                with open(sys.argv[1]) as gate:  # a FIFO: until somebody writes
                    gate.read()

            def forward(self, data):
                get_logger().info("forward of %s", data)
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Quick)
            server.append_worker(Slow, num=2)
            server.run()
    """
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = serve(source, str(gate), "--address", "127.0.0.1", "--port", str(port))
    service.wait_output("<Quick_1.1> ready")
    service.wait_output("loading")
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0
    gate.write_text("")
    service.wait_ready()
    messages = service.messages
    assert messages.index("forward of warm") < messages.index(f"listening on 127.0.0.1:{port}")
    with service.client() as client:
        assert client.post("/inference", json=[1]).json() == [1]


def test_warm_up_examples(serve: Serve) -> None:
    source = """
        from mosec_cy import Server, Worker, get_logger

        class Several(Worker):
            multi_examples = [1, 2]
            example = 3

            def forward(self, data):
                get_logger().info("forward of %s", data)
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Several)
            server.run()
    """
    service = serve(source).wait_ready()
    forwards = [message for message in service.messages if message.startswith("forward")]
    assert forwards == ["forward of 1", "forward of 2"]


@pytest.mark.parametrize(("env", "namespace"), [({}, "of_the_program"), ({"MOSEC_NAMESPACE": "of_env"}, "of_env")])
def test_the_programs_own_defaults_and_the_environment(serve: Serve, env: dict[str, str], namespace: str) -> None:
    service = serve(echo(server='namespace="of_the_program"'), env=env).wait_ready()
    with service.client() as client:
        assert f"\n{namespace}_remaining_task " in client.get("/metrics").text


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "service.socket"
    service = serve(ECHO, "--address", f"unix:{path}").wait_ready()
    with service.client() as client:
        assert client.post("/inference", json={"x": 1}).json() == {"x": 1}
    service.stop()
    assert not path.exists()


def test_debug_log_in_every_process(serve: Serve) -> None:
    service = serve(ABOUT, "spawn", "--log-level", "debug").wait_ready()
    with service.client() as client:
        client.post("/inference", json={})
    assert re.search(r"DEBUG\x1b\[0m user::service\.py:\d+ \[\d+\]: forward$", service.wait_output("forward").string)
