"""RedisShmIPCMixin against a real Redis."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mosec_cy import ServerError, Worker
from mosec_cy.mixin import NumBinIPCMixin, RedisShmIPCMixin
from mosec_cy.mixin.redis import client as worker_client

redis = pytest.importorskip("redis", reason="needs the extra 'redis'")


class Passes(RedisShmIPCMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


class PassesArrays(RedisShmIPCMixin, NumBinIPCMixin, Worker):
    def forward(self, data: Any) -> Any:
        return data


class HasItsOwn(Passes):
    _redis = _decode = None  # what programs may call their own things


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MOSEC_REDIS_URL", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def worker(client: Any) -> Any:
    yield Passes()
    worker_client().close()


def test_there_and_back(client: Any, worker: Any) -> None:
    value = {"array": np.arange(3), "set": {1}, "text": "é" * 10_000}
    key = worker.serialize_ipc(value)
    assert client.keys() == [key]
    assert len(key) < 64
    np.testing.assert_equal(worker.deserialize_ipc(memoryview(key)), value)
    assert client.keys() == []


def test_names_of_the_program_are_its_own(client: Any) -> None:
    worker = HasItsOwn()
    assert worker.deserialize_ipc(worker.serialize_ipc(1)) == 1
    worker_client().close()


def test_another_mixin_may_encode(client: Any) -> None:
    worker = PassesArrays()
    key = worker.serialize_ipc(np.arange(5))
    assert client.get(key)[:6] == b"\x05\0\x01\0\x05\0"
    assert worker.deserialize_ipc(key).tolist() == [0, 1, 2, 3, 4]
    worker_client().close()


def test_what_nobody_fetches_goes_away(client: Any, worker: Any) -> None:
    key = worker.serialize_ipc(1)
    assert 590_000 < client.pttl(key) <= 600_000
    worker.redis_ttl = 0.5
    assert 0 < client.pttl(worker.serialize_ipc(1)) <= 500


def test_fetched_twice(worker: Any) -> None:
    key = worker.serialize_ipc(1)
    assert worker.deserialize_ipc(key) == 1
    with pytest.raises(ServerError, match="no longer"):
        worker.deserialize_ipc(key)


@pytest.mark.parametrize("key", [b"", b"theirs", b"\x80\x05N."])
def test_nothing_else_is_touched(client: Any, worker: Any, key: bytes) -> None:
    client.set(b"theirs", b"kept")
    with pytest.raises(ServerError, match="both stages"):
        worker.deserialize_ipc(key)
    assert client.get(b"theirs") == b"kept"


def test_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOSEC_REDIS_URL", raising=False)
    with pytest.raises(RuntimeError, match=re.escape("set_redis_url(url)")):
        Passes().serialize_ipc(1)
    monkeypatch.setenv("MOSEC_REDIS_URL", "")  # so that it is put back
    Passes.set_redis_url("unix:///nowhere.sock?socket_timeout=3")
    assert os.environ["MOSEC_REDIS_URL"] == "unix:///nowhere.sock?socket_timeout=3"
    with pytest.raises(redis.ConnectionError):
        Passes().serialize_ipc(1)


@pytest.mark.parametrize(("options", "patience"), [("", 10), ("?socket_timeout=3", 3)])
def test_a_silent_redis_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str, patience: float
) -> None:
    monkeypatch.setenv("MOSEC_REDIS_URL", f"unix://{tmp_path}/silent.sock{options}")
    worker = Passes()
    assert worker_client().connection_pool.connection_kwargs["socket_timeout"] == patience
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen()
        worker_client().connection_pool.connection_kwargs["socket_timeout"] = 0.1
        with pytest.raises(redis.TimeoutError):
            worker.serialize_ipc(1)


def test_full(client: Any, worker: Any) -> None:
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError):
        worker.serialize_ipc(1)
