"""A service whose workers say what they run and how their clients fare, for tests of clients that leave."""

WATCHFUL = """
    import functools, os, sys, time
    from mosec_cy import Server, Worker

    def say(*words):  # in one piece: others write there too
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def wait(data):  # for whoever opens the other end of the FIFO
        if str(data).startswith("hold"):
            with open(sys.argv[1]) as gate:
                gate.read()

    class Counting(Worker):
        def forward(self, data):
            say("run", data)
            wait(data)
            time.sleep(0.002)  # no dispatch ahead to a worker that takes that long: what waits is in core's queue
            return data

    class First(Worker):
        def forward(self, data):
            return data

    class Alone(Worker):
        def forward(self, data):
            say("alone", data, self.is_cancelled())
            while not self.is_cancelled():
                time.sleep(0.001)
            say("left alone", data)
            return data

    class Watching(Worker):
        # Until as many have left as the first item says.
        def forward(self, data):
            say("batch", *[item["name"] for item in data])
            left = []
            while len(left) < data[0]["leave"]:
                left = [item["name"] for index, item in enumerate(data) if self.is_cancelled(index)]
                time.sleep(0.001)
            say("left", *left)
            return data

    class Large(Worker):
        resp_mime_type = "application/octet-stream"

        def forward(self, data):
            say("large")
            return bytes(data)

        def serialize(self, data):
            return data

    if __name__ == "__main__":
        server = Server()
        # So many interpreters would take a second to start.
        server.append_worker = functools.partial(server.append_worker, start_method="fork")
        server.append_worker(Counting, route="/count")
        server.append_worker(First, route="/two")
        server.append_worker(Counting, route="/two")
        server.append_worker(Alone, route="/alone")
        server.append_worker(Watching, max_batch_size=4, max_wait_time=30000, route="/four")
        server.append_worker(Watching, max_batch_size=64, max_wait_time=30000, route="/many")
        server.append_worker(Large, route="/large")
        server.run()
"""
