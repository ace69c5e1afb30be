"""A model server for Python: dynamic batching, pipelined stages and shared memory, with a Cython engine.

Names load on first use: the core process imports this package and must stay small, so nothing here
may import NumPy, msgspec or the control plane.
"""

__version__ = "0.1.0"

_HOMES = {
    "Server": "server",
    "Worker": "worker",
    "SSEWorker": "worker",
    "StepWorker": "worker",
    "Runtime": "runtime",
    "ParseTarget": "_codecs.annotations",
    "get_logger": "log",
    "MosecError": "errors",
    "MosecTimeoutError": "errors",
    "ClientError": "errors",
    "ServerError": "errors",
    "DecodingError": "errors",
    "EncodingError": "errors",
    "ValidationError": "errors",
}

_MODULES = ("errors", "log", "mixin", "runtime", "server", "worker")

# Type checkers take the name for true; `typing` itself stays out of the core process.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from mosec_cy import errors as errors
    from mosec_cy import log as log
    from mosec_cy import mixin as mixin
    from mosec_cy import runtime as runtime
    from mosec_cy import server as server
    from mosec_cy import worker as worker
    from mosec_cy._codecs.annotations import ParseTarget
    from mosec_cy.errors import (
        ClientError,
        DecodingError,
        EncodingError,
        MosecError,
        MosecTimeoutError,
        ServerError,
        ValidationError,
    )
    from mosec_cy.log import get_logger
    from mosec_cy.runtime import Runtime
    from mosec_cy.server import Server
    from mosec_cy.worker import SSEWorker, StepWorker, Worker

__all__ = [
    "ClientError",
    "DecodingError",
    "EncodingError",
    "MosecError",
    "MosecTimeoutError",
    "ParseTarget",
    "Runtime",
    "SSEWorker",
    "Server",
    "ServerError",
    "StepWorker",
    "ValidationError",
    "Worker",
    "get_logger",
]


def _load(name: str) -> object:
    home = _HOMES.get(name)
    if home is None and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if home is None:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # to type checkers each misspelt name would be an object
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
