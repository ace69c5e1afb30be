"""RedisShmIPCMixin in a service: what waits in Redis, and what is left there."""

import http.client
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.until import PATIENCE, until

redis = pytest.importorskip("redis", reason="needs the extra 'redis'")

SERVICE = """
    import sys

    import numpy as np

    from mosec_cy import ClientError, Server, Worker
    from mosec_cy.mixin import RedisShmIPCMixin

    class First(RedisShmIPCMixin, Worker):
        def forward(self, data):
            return {"array": np.arange(data["n"]), "data": data}

    class Second(RedisShmIPCMixin, Worker):
        def forward(self, data):
            return [self.answer(item) for item in data]

        def answer(self, item):
            return ClientError("none") if item["data"]["n"] == 0 else item

    class Third(RedisShmIPCMixin, Worker):
        def forward(self, data):
            return int(data["array"].sum())

    if __name__ == "__main__":
        RedisShmIPCMixin.set_redis_url(sys.argv[1])
        server = Server()
        for stage, size in ((First, 1), (Second, 4), (Third, 1)):
            server.append_worker(stage, num=2, max_batch_size=size, start_method=sys.argv[2])
        server.run()
"""


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_results_by_way_of_redis(serve: Any, redis_url: str, start_method: str) -> None:
    service = serve(SERVICE, redis_url, start_method).wait_ready()
    with service.client() as client, redis.Redis.from_url(redis_url) as looker:
        for n in (3, 10, 1000):
            assert client.post("/inference", json={"n": n}).json() == n * (n - 1) // 2
        assert client.post("/inference", json={"n": 0}).text == "bad request: none"
        assert client.post("/inference", json={"n": 3}).json() == 3
        assert looker.keys() == []
        assert looker.info("commandstats")["cmdstat_set"]["calls"] == 2 * 5 - 1


def test_redis_that_is_away(serve: Any, tmp_path: Path) -> None:
    service = serve(SERVICE, f"unix://{tmp_path}/none.sock", "spawn").wait_ready()
    with service.client() as client:
        response = client.post("/inference", json={"n": 1})
        assert (response.status_code, response.text) == (500, "inference internal error")
    service.wait_output("redis.exceptions.ConnectionError")


HELD = """
    import os
    import sys

    import redis

    from mosec_cy import Server, Worker
    from mosec_cy.mixin import RedisShmIPCMixin
    from redis import Redis

    class First(RedisShmIPCMixin, Worker):
        redis_ttl = 100

        def forward(self, data):
            return data

    class Second(RedisShmIPCMixin, Worker):
        def __init__(self):
            self._redis = Redis.from_url(sys.argv[1])  # of its own, for purposes of its own

        def forward(self, data):
            with redis.Redis.from_url(os.environ["MOSEC_REDIS_URL"]) as client:
                client.rpush("begun", data)
                client.blpop("go", 30)
            return data

    if __name__ == "__main__":
        RedisShmIPCMixin.set_redis_url(sys.argv[1])
        server = Server(timeout=60_000)
        server.append_worker(First)
        server.append_worker(Second)
        server.run()
"""


def remaining(client: httpx.Client) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(family.samples[0].value for family in families if family.name == "mosec_service_remaining_task")


def test_a_result_that_nobody_fetches_expires(serve: Any, redis_url: str) -> None:
    service = serve(HELD, redis_url).wait_ready()
    leaver = http.client.HTTPConnection(service.address, timeout=PATIENCE)
    with service.client() as client, redis.Redis.from_url(redis_url) as looker, ThreadPoolExecutor() as pool:
        stays = pool.submit(client.post, "/inference", content=b"1")
        assert looker.blpop("begun", 30) == (b"begun", b"1")
        leaver.request("POST", "/inference", b"2")  # waits: the only worker of the second stage is busy
        until(lambda: looker.keys("mosec_cy:ipc:*") != [])
        leaver.close()
        until(lambda: remaining(client) == 1)
        looker.rpush("go", "1", "3")
        assert (stays.result().text, client.post("/inference", content=b"3").text) == ("1", "3")
        [key] = looker.keys("mosec_cy:ipc:*")
        assert 0 < looker.pttl(key) <= 100_000
