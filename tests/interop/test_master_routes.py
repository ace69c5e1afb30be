"""The routes that the master answers, when the memory that they go through is corrupt."""

from collections.abc import Callable

from tests.service import Service

SCRIBBLER = """
    import mmap, os, struct
    from mosec_cy import Server, Worker
    from mosec_cy._engine.segment import Segment

    class Scribbler(Worker):
        def forward(self, data):
            links = [f"/proc/self/fd/{fd}" for fd in range(3, 64)]
            (own,) = [link for link in links if os.path.lexists(link) and "memfd:mosec_cy " in os.readlink(link)]
            fd = int(os.path.basename(own))
            segment = Segment.attach(os.dup(fd))
            with mmap.mmap(fd, segment.layout()["size"]) as memory:
                _, answers_of_master = segment.layout()["rings"][0]
                struct.pack_into("=Q", memory, answers_of_master + 64, 1 << 63)  # core's index into them
            segment.close()
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Scribbler)
        server.run()
"""


def test_a_worker_that_corrupts_the_masters_ring_does_not_end_the_service(serve: Callable[..., Service]) -> None:
    service = serve(SCRIBBLER, "--timeout", "500").wait_ready()
    with service.client() as client:
        for _ in range(64):  # master looks at core's index when it has gone round its ring
            assert client.get("/metrics").status_code == 200
        assert client.post("/inference", json=1).json() == 1
        assert client.get("/metrics").status_code == 408
        assert client.post("/inference", json=2).json() == 2
    service.wait_output("cannot answer requests to the server itself")
