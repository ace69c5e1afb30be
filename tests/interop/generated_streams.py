"""A service whose `forward`s are generators of events, or come to that by other ways."""

SERVICE = """
    import asyncio, os, sys
    from mosec_cy import Server, SSEWorker, ValidationError, Worker

    GATE = sys.argv[1]

    def said(*what):
        print(*what, flush=True)

    # ---- streams of one --------------------------------------------------------------------------

    class Generator(SSEWorker):
        example = {"texts": ["warm"]}

        def forward(self, data):
            try:
                for text in data.get("texts", []):
                    yield text
                how = data.get("then")
                if how == "invalid":
                    raise ValidationError("no more")
                if how == "bytes":
                    yield b"x"
                if how == "none":
                    yield
                if how == "pair":
                    yield 0, "x"
                if how == "flood":
                    while True:
                        yield "x" * 100_000
                if how == "gate":
                    with open(GATE) as gate:
                        gate.read()
                if how == "spin":
                    while True:
                        pass
                if how == "return error":
                    return ValidationError("returned")
            finally:
                if data["texts"] != ["warm"]:
                    said("closed", self.is_cancelled())

    class AsyncGenerator(SSEWorker):
        example = {"texts": ["warm"]}

        async def forward(self, data):
            try:
                for text in data.get("texts", []):
                    await asyncio.sleep(0)
                    yield text
                how = data.get("then")
                if how == "invalid":
                    raise ValidationError("no more")
                if how == "bytes":
                    yield b"x"
                if how == "none":
                    yield
                if how == "pair":
                    yield 0, "x"
                if how == "flood":
                    while True:
                        yield "x" * 100_000
                if how == "gate":
                    await asyncio.sleep(3600)
                if how == "spin":
                    while True:
                        pass
            finally:
                await asyncio.sleep(0)
                if data["texts"] != ["warm"]:
                    said("closed", self.is_cancelled())

    class Coroutine(SSEWorker):
        async def forward(self, data):
            await asyncio.sleep(0)
            self.send_stream_event("from a coroutine")

    class ReturnsGenerator(SSEWorker):
        def forward(self, data):
            return Generator.forward(self, data)

    class CoroutineOfGenerator(SSEWorker):
        async def forward(self, data):
            return AsyncGenerator.forward(self, data)

    class Streamer:
        def __init__(self, texts):
            self.rest = list(texts)

        def __iter__(self):
            return self

        def __next__(self):
            if not self.rest:
                raise StopIteration
            return self.rest.pop(0)

    class ReturnsIterator(SSEWorker):
        def forward(self, data):
            return Streamer(data["texts"])

    # ---- streams of batches ----------------------------------------------------------------------

    class BatchGenerator(SSEWorker):
        example = [{"name": "warm"}]

        def forward(self, data):
            for round in range(3):
                for index, item in enumerate(data):
                    yield index, f"{item['name']}:{round}"
            for index, item in enumerate(data):
                if "yield" in item:
                    yield {"text": "x", "index": (9, "x"), "bytes": (index, b"x"), "three": (0, 1, "x")}[item["yield"]]
            return [ValidationError(item["error"]) if "error" in item else None for item in data]

    class BatchAsyncGenerator(SSEWorker):
        async def forward(self, data):
            for round in range(3):
                await asyncio.sleep(0)
                for index, item in enumerate(data):
                    yield index, f"{item['name']}:{round}"

    class BatchOfGenerators(SSEWorker):
        def forward(self, data):
            return [self.one(item) for item in data]

        def one(self, item):
            yield "a"

    if __name__ == "__main__":
        server = Server(timeout=60_000)
        for worker in (Generator, AsyncGenerator, Coroutine, ReturnsGenerator, CoroutineOfGenerator, ReturnsIterator):
            server.append_worker(worker, route=f"/{worker.__name__}")
        for worker in (Generator, AsyncGenerator):
            server.append_worker(worker, route=f"/slow/{worker.__name__}", timeout=1)
        for worker in (BatchGenerator, BatchAsyncGenerator, BatchOfGenerators):
            server.append_worker(worker, route=f"/{worker.__name__}", max_batch_size=2, max_wait_time=500)
        server.run()
"""
