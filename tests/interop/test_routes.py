"""Pipelines, routes, and runtimes that routes share."""

import pytest

from tests.service import Serve

SHARED = """
    from mosec_cy import Runtime, Server, Worker

    class Upper(Worker):
        def forward(self, data):
            return data.upper()

    class Marked(Worker):
        # Own codecs on both borders, to see which one is used.
        resp_mime_type = "text/x-marked"

        def deserialize(self, data):
            return "body " + bytes(data).decode()

        def deserialize_ipc(self, data):
            return "ipc " + bytes(data).decode()

        def serialize(self, data):
            return ("answer " + data).encode()

        def serialize_ipc(self, data):
            return ("passed " + data).encode()

        def forward(self, data):
            return data

    class Plain(Worker):
        resp_mime_type = "text/x-plain"
        deserialize_ipc = lambda self, data: bytes(data).decode()
        serialize = lambda self, data: data.encode()

        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        marked, plain = Runtime(Marked), Runtime(Plain)
        server.register_runtime({
            "/alone": [marked],
            "/first": [marked, plain],
            "/twice": [marked, marked],
            "/in/between": [marked, marked, plain],
        })
        server.run()
"""


@pytest.mark.parametrize(
    ("route", "answer", "content_type"),
    [
        ("/alone", "answer body x", "text/x-marked"),
        ("/first", "passed body x", "text/x-plain"),
        ("/twice", "answer ipc passed body x", "text/x-marked"),
        ("/in/between", "passed ipc passed body x", "text/x-plain"),
    ],
)
def test_a_shared_runtime_knows_its_place_in_each_route(
    serve: Serve, route: str, answer: str, content_type: str
) -> None:
    service = serve(SHARED).wait_ready()
    with service.client() as client:
        response = client.post(route, content=b"x")
    assert response.status_code == 200
    assert response.text == answer
    assert response.headers["content-type"] == content_type
    assert len(service.pids("mosec_cy: Marked_1")) == 1


PIPELINES = """
    from mosec_cy import Server, Worker

    class Add(Worker):
        def forward(self, data):
            return data + 1

    class Double(Worker):
        def forward(self, data):
            return [2 * item for item in data]

    class Text(Worker):
        resp_mime_type = "text/plain"

        def serialize(self, data):
            return str(data).encode()

        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        server.append_worker(Add, num=2, route=["/a", "/b"])
        server.append_worker(Double, max_batch_size=8, max_wait_time=1, route="/a")
        server.append_worker(Text, route=["/a", "/b"])
        server.append_worker(Add, route="/c")
        server.run()
"""


def test_several_routes(serve: Serve) -> None:
    service = serve(PIPELINES).wait_ready()
    with service.client() as client:
        for number in range(20):
            assert client.post("/a", json=number).text == str(2 * (number + 1))
            assert client.post("/b", json=number).text == str(number + 1)
            assert client.post("/c", json=number).json() == number + 1
        metrics = client.get("/metrics").text
        assert client.post("/inference", json=1).status_code == 404
        assert client.get("/a").status_code == 405
        assert client.get("/openapi/other").status_code == 404
    assert 'mosec_service_throughput_total{code="200",endpoint="/a"} 20.0' in metrics
    assert 'mosec_service_batch_size_count{connection="1",stage="Double_2"} 20.0' in metrics
    assert 'mosec_service_process_duration_second_count{connection="total",stage="total"} 60.0' in metrics
    assert "mosec_service_remaining_task 0.0" in metrics
