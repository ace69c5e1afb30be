"""A service with streams of many kinds, and a client for them."""

from __future__ import annotations

from httpx_sse import connect_sse

from tests.service import Service

STREAMS = """
    import functools, os, sys, threading, time
    from mosec_cy import Server, SSEWorker, ValidationError, Worker

    class Pre(Worker):
        def forward(self, data):
            if data == "early":
                raise ValidationError("early")
            return data

    class Single(SSEWorker):
        example = {"texts": ["warm"]}

        def forward(self, data):
            for text in data.get("texts", []):
                print(f"sent {self.send_stream_event(text)}", flush=True)
            how = data.get("then")
            if how == "invalid":
                raise ValidationError("so\\nit is")
            if how == "broken":
                raise RuntimeError("secret")
            if how == "killed":
                os.kill(os.getpid(), 9)
            if how == "index":
                self.send_stream_event("x", index=1)
            if how == "gate":
                with open(sys.argv[1]) as gate:  # a FIFO: until somebody writes
                    gate.read()
                print(f"after the gate {self.send_stream_event('late')} {self.is_cancelled()}", flush=True)
            if how == "until cancelled":
                while not self.is_cancelled():
                    time.sleep(0.001)
                print(f"cancelled {self.send_stream_event('late')}", flush=True)
            if how == "flood":
                print("flooding", flush=True)
                while self.send_stream_event("x" * 100_000):
                    pass
                print("flooded", flush=True)
            if how == "threads":
                def run(number):
                    for i in range(200):
                        assert self.send_stream_event(f"{number}:{i}")
                threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
            return {"ignored": 1}

    class Batch(SSEWorker):
        def forward(self, data):
            sent = [True] * len(data)
            for round in range(100):
                for i, item in enumerate(data):
                    sent[i] = self.send_stream_event(f"{item['name']}:{round}" + "." * item.get("bytes", 0), index=i)
            if any(item.get("then") == "invalid" for item in data):
                raise ValidationError("all of you")
            print(f"batch {len(data)} {sent} {[self.is_cancelled(i) for i in range(len(data))]}", flush=True)

    class Plain(Worker):
        def forward(self, data):
            print("running", flush=True)
            while not self.is_cancelled():
                time.sleep(0.001)
            print("cancelled", flush=True)

    class Mixed(SSEWorker):
        def forward(self, data):
            if data == "last":
                self.send_stream_event("event")
            elif data == "inner":
                return "plain"
            else:
                self.send_stream_event("refused")

    class Inner(SSEWorker):
        def forward(self, data):
            self.send_stream_event("lost")

    class Post(Worker):
        def forward(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        # So many interpreters would take a second to start.
        server.append_worker = functools.partial(server.append_worker, start_method="fork")
        server.append_worker(Pre, route=["/inference", "/slow"])
        server.append_worker(Single, route="/inference", timeout=60)
        server.append_worker(Single, route="/slow", timeout=0.3)
        for size in (2, 8):  # a batch waits until it is full
            server.append_worker(Batch, max_batch_size=size, max_wait_time=30000, route=f"/batch{size}")
        server.append_worker(Plain, route="/plain")
        server.append_worker(Mixed, route=["/mixed", "/inner"])
        server.append_worker(Inner, route="/never")
        server.append_worker(Post, route=["/inner", "/never"])
        server.run()
"""


def read(service: Service, body: object, path: str = "/inference") -> list[tuple[str, str]]:
    """(name, data) of all events of the answer."""
    with service.client() as client, connect_sse(client, "POST", path, json=body) as source:
        assert source.response.status_code == 200
        assert source.response.headers["cache-control"] == "no-cache"
        return [(event.event, event.data) for event in source.iter_sse()]


def message(*texts: str) -> list[tuple[str, str]]:
    return [("message", text) for text in texts]


def error(text: str) -> list[tuple[str, str]]:
    return [("error", f"SSE inference error: {text}")]
