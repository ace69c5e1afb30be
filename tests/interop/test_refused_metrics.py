"""What user code records and `/metrics` cannot show: said once in the log, and the page is whole."""

import pytest

from tests.interop.scrape import scrape, scrape_until
from tests.service import Serve

CLASHING = """
    import os
    from prometheus_client import REGISTRY, Counter, Gauge
    from prometheus_client.core import GaugeMetricFamily
    from mosec_cy import Server, Worker

    class Clash(Worker):
        def __init__(self):
            Gauge("mosec_service_throughput", "ours").set(1)
            (Gauge if self.worker_id == 1 else Counter)("twofold", "a gauge, or a counter", ["a"]).labels("x").inc()
            Gauge("labelled", "has one label or the other", [f"label{self.worker_id}"]).labels("x").inc()
            Gauge("fine", "in both").set(1)
            if self.worker_id == 2:
                REGISTRY.register(Broken())

        def forward(self, data):
            return data

    class Broken:
        def describe(self):
            return []

        def collect(self):
            yield GaugeMetricFamily("given", "before it raises", 3)
            raise LookupError("no such sensor")

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Clash, num=2)
        server.run()
"""


def test_clashes_are_logged_once_and_the_page_is_whole(serve: Serve) -> None:
    service = serve(CLASHING).wait_ready()
    service.wait_outputs("> ready", 2)
    with service.client() as client:
        shown = {"twofold a=x": 1.0, "labelled label1=x": 1.0, "fine": 2.0, "given": 3.0}
        for _ in range(3):
            assert scrape_until(client, shown) == shown
    service.stop()
    errors = sorted(record["fields"]["message"] for record in service.records if record["level"] == "ERROR")
    lacks = "/metrics lacks some of what was recorded as"
    assert errors == [
        f"{lacks} 'labelled': it has other labels in one process than in another",
        f"{lacks} 'mosec_service_throughput': the name 'mosec_service_throughput' belongs to the service's own metrics",
        f"{lacks} 'twofold': it is a gauge in one process and a counter in another",
        "/metrics lacks what a collector of this process should have said: LookupError('no such sensor')",
    ]


HOSTILE = """
    import os, stat
    from mosec_cy import Server, Worker
    from mosec_cy._base import messages

    class Liar(Worker):
        def forward(self, data):
            if data is None:
                return os.getpid()
            for fd in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        import socket
                        messages.send(socket.socket(fileno=os.dup(fd)), {"metrics": bytes.fromhex(data)})
                except OSError:
                    pass

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Liar)
        server.run()
"""


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x91\x94\xa3a b\xa5gauge\xa0\x90", b"\x91\x94\xa1a\xa4evil\xa0\x90"])
def test_what_is_no_snapshot_ends_its_sender(serve: Serve, body: bytes) -> None:
    service = serve(HOSTILE).wait_ready()
    with service.client() as client:
        client.post("/inference", json=body.hex())
        service.wait_output("killed, user code has written into its control socket: no snapshot of metrics")
        service.wait_outputs("ready", 2)
        assert client.get("/metrics").status_code == 200


def test_a_registry_that_is_too_large_is_left_out(serve: Serve) -> None:
    service = serve(
        """
        from prometheus_client import Counter
        from mosec_cy import Server, Worker

        class Large(Worker):
            def __init__(self):
                many = Counter("many", "too many labels", ["user"])
                for number in range(6000):
                    many.labels(str(number) * 300).inc()

            def forward(self, data):
                return data

        if __name__ == "__main__":
            server = Server()
            server.append_worker(Large)
            server.run()
        """
    ).wait_ready()
    with service.client() as client:
        assert scrape(client) == {}
        service.wait_output(r"left out of /metrics: 6000 samples in \d+ bytes, more than 2097152")
        assert client.post("/inference", json=1).json() == 1
