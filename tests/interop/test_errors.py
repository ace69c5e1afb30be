"""What a client is told when user code raises, with Mosec's statuses and texts."""

from tests.service import Serve, Service

RAISING = """
    import time
    from mosec_cy import Server, Worker, errors

    class Raising(Worker):
        def forward(self, data):
            name, *arguments = data
            raise {**vars(errors), "KeyError": KeyError}[name](*arguments)

    class Unencodable(Worker):
        def forward(self, data):
            return object()

    class Slow(Worker):
        def forward(self, data):
            time.sleep(60)

    class Short(Worker):
        def forward(self, data):
            return data[1:]

    class Picky(Worker):
        def forward(self, data):
            return [ValueError("no") if item == "bad" else item for item in data]

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Raising)
        server.append_worker(Unencodable, route="/unencodable")
        server.append_worker(Slow, timeout=0.2, route="/slow")
        server.append_worker(Short, max_batch_size=2, max_wait_time=1, route="/short")
        server.append_worker(Picky, max_batch_size=2, max_wait_time=1, route="/picky")
        server.run()
"""

RAISED = [
    (["ClientError"], 400, "bad request: bad request"),
    (["ClientError", "two\nlines"], 400, "bad request: two - lines"),
    (["DecodingError", "x"], 400, "decoding error: x"),
    (["ValidationError", "'x'"], 422, "request validation error: 'x'"),
    (["ServerError", "x"], 500, "internal error: x"),
    (["EncodingError", "x"], 500, "encoding error: x"),
    (["MosecError", "x"], 500, "mosec error: x"),
    (["MosecTimeoutError", "x"], 408, "mosec timeout error: x"),
    (["KeyError", "secret"], 500, "inference internal error"),
]


def test_error_mapping(serve: Serve) -> None:
    service = serve(RAISING).wait_ready()
    with service.client() as client:
        for body, status, text in RAISED:
            response = client.post("/inference", json=body)
            assert (response.status_code, response.text) == (status, text)
            assert response.headers["content-type"].startswith("text/plain")
        for body in (b"{", b"\xff", b"nonsense"):
            response = client.post("/inference", content=body)
            assert response.status_code == 400
            assert response.text.startswith("decoding error: ")
        response = client.post("/inference", content=b"")
        assert (response.status_code, response.text) == (200, "no data provided")
        response = client.post("/unencodable", json=1)
        assert response.status_code == 500
        assert response.text.startswith("encoding error: ")
        response = client.post("/slow", json=1)
        assert response.status_code == 408
        assert response.text.startswith("mosec timeout error: ")
        assert client.post("/short", json=1).status_code == 500
        assert client.post("/picky", json="good").json() == "good"
        assert client.post("/picky", json="bad").status_code == 500
        metrics = client.get("/metrics").text
    for status, count in ((400, 6), (408, 1), (422, 1), (500, 4)):
        assert f'mosec_service_throughput_total{{code="{status}",endpoint="/inference"}} {count}.0' in metrics
    assert "secret" in service_log_of(service)


def service_log_of(service: Service) -> str:
    """Its whole log, once it has ended."""
    service.stop()
    return service.output
