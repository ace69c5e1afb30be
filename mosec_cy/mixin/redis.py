"""Results that go to the next stage by way of Redis."""

from __future__ import annotations

import os
import secrets
from typing import Any, TypeVar

from mosec_cy.errors import ServerError
from mosec_cy.worker import BaseWorker, load_extra, reads_in_place

Self = TypeVar("Self", bound="RedisShmIPCMixin")

URL_VARIABLE = "MOSEC_REDIS_URL"
KEY_PREFIX = b"mosec_cy:ipc:"
TIMEOUT = 10.0  # s; a Redis that says nothing shall not hold a worker for ever


class RedisShmIPCMixin(BaseWorker):
    """Results wait in Redis for the next stage, and only their keys pass through the service; both stages mix this in.

    Useful where others look at the results, or where they should not count against the service's memory; the default
    is faster. Another mixin after this one decides how the result is encoded.
    """

    redis_ttl: float = 600.0
    """How long a result waits in Redis, in s: longer than a request may take. One that is not fetched is gone then."""

    def __new__(cls: type[Self], *args: Any, **kwargs: Any) -> Self:
        load_extra("redis", cls.__qualname__)  # a worker without it would fail each request
        return super().__new__(cls)

    @classmethod
    def set_redis_url(cls, url: str) -> None:
        """Use this Redis in workers that are started from now on.

        Args:
            url: `redis://host:port/db`, `rediss://…` (TLS) or `unix://path`; options of the client follow a `?`,
                such as `socket_timeout=3` (s; 10 by default). It is kept in the environment, as MOSEC_REDIS_URL,
                which can be set instead.
        """
        os.environ[URL_VARIABLE] = url

    def serialize_ipc(self, data: Any) -> Any:
        """Put a result into Redis.

        Returns:
            Its key.

        Raises:
            redis.RedisError: Redis cannot be reached, or is full: the request is answered 500.
        """
        key = KEY_PREFIX + secrets.token_hex(16).encode()
        client().set(key, super().serialize_ipc(data), px=round(self.redis_ttl * 1000))
        return key

    @reads_in_place
    def deserialize_ipc(self, data: Any) -> Any:
        """Take a result out of Redis, and free its key.

        Args:
            data: the key.

        Raises:
            ServerError: it is no key of `serialize_ipc`, or nothing is there any more.
            redis.RedisError: Redis cannot be reached: the request is answered 500.
        """
        key = bytes(data)
        if not key.startswith(KEY_PREFIX):  # a corrupt key shall not delete what is not ours
            raise ServerError("no key of a result in Redis: do both stages mix RedisShmIPCMixin in?")
        with client().pipeline(transaction=True) as together:  # GETDEL would need Redis 6.2
            payload, _ = together.get(key).unlink(key).execute()
        if payload is None:
            raise ServerError(f"Redis has the result of the stage before no longer (redis_ttl: {self.redis_ttl} s)")
        return super().deserialize_ipc(payload)


_clients: dict[str, Any] = {}


def client() -> Any:
    """This process's client of the Redis that the workers use.

    Raises:
        RuntimeError: no URL of a Redis is set.
    """
    # Not before it is used: each process has connections of its own, and Redis may start after the service.
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise RuntimeError(
            f"which Redis? Set {URL_VARIABLE}, or call RedisShmIPCMixin.set_redis_url(url) before the server runs"
        )
    if url not in _clients:
        import redis

        _clients[url] = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    return _clients[url]
