"""What user code may do to the descriptors that it finds in its process."""

import pytest

from tests.service import Serve


def test_a_worker_that_writes_into_its_control_socket_is_replaced(serve: Serve) -> None:
    service = serve(
        """
        import os, stat
        from mosec_cy import Server, Worker

        class Scribbler(Worker):
            def forward(self, data):
                for fd in range(3, 64):
                    try:
                        if data["scribble"] and stat.S_ISSOCK(os.fstat(fd).st_mode):
                            os.write(fd, b"\\1\\0\\0\\0\\7")
                    except OSError:
                        pass
                return os.getpid()

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Scribbler)
            server.run()
        """
    ).wait_ready()
    with service.client() as client:
        first = client.post("/inference", json={"scribble": False}).json()
        client.post("/inference", json={"scribble": True})
        service.wait_output("killed, user code has written into its control socket")
        for _ in range(100):
            answer = client.post("/inference", json={"scribble": False})
            if answer.status_code == 200 and answer.json() != first:
                break
        else:
            raise AssertionError(f"{first} still answers: {answer.text}")


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_programs_of_user_code_inherit_nothing(serve: Serve, method: str) -> None:
    """Not even those that are started with all descriptors: they would keep the memory after a core's death."""
    service = serve(
        f"""
        import subprocess
        from mosec_cy import Server, Worker

        class Starter(Worker):
            def forward(self, data):
                listing = ["ls", "-l", "/proc/self/fd"]
                return subprocess.run(listing, close_fds=False, stdout=subprocess.PIPE, text=True).stdout

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Starter, start_method="{method}")
            server.run()
        """
    ).wait_ready()
    with service.client() as client:
        listing = client.post("/inference", json=0).json()
    found = [line.rpartition("-> ")[2] for line in listing.splitlines() if "-> " in line]
    assert [target for target in found if "memfd" in target or "eventfd" in target or "socket" in target] == []
