"""JAX: a function compiled for a few batch sizes, and batches padded to the next of them.

    python examples/jax_jitted/server.py
    curl -d '[0.1, 0.2, ...64 numbers]' http://127.0.0.1:8000/inference      ->  {"label":3,"score":0.17}

`jax.jit` compiles once for each shape that it meets. Dynamic batches have any size up to `max_batch_size`: without
padding, the first batch of each size would wait for the compiler.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mosec_cy import Server, ValidationError, Worker, get_logger

Vector = npt.NDArray[np.float32]

FEATURES, HIDDEN, LABELS = 64, 128, 10
SIZES = (1, 4, 16)  # batch sizes that are compiled for
BLANK = np.zeros(FEATURES, np.float32)

logger = get_logger()


def weights(seed: int = 0) -> tuple[Any, Any]:
    """Two layers with random weights: where the model comes from is not the point here."""
    import jax

    first, second = jax.random.split(jax.random.PRNGKey(seed))
    return jax.random.normal(first, (FEATURES, HIDDEN)) / 8, jax.random.normal(second, (HIDDEN, LABELS)) / 11


class Classifier(Worker):
    multi_examples = [[BLANK] * size for size in SIZES]  # compiles all before the first request

    def __init__(self) -> None:
        import jax  # here, so that only the worker loads it
        import jax.numpy as jnp

        first, second = weights()

        def classify(batch: Any) -> Any:
            logger.info("compiling for a batch of %d", batch.shape[0])  # runs while JAX traces, so once a shape
            return jax.nn.softmax(jnp.maximum(batch @ first, 0) @ second)

        self.classify = jax.jit(classify)

    def deserialize(self, data: Any) -> Vector:
        values = super().deserialize(data)
        try:
            vector = np.asarray(values, np.float32)
        except (TypeError, ValueError) as error:
            raise ValidationError(f"send a list of {FEATURES} numbers: {error}") from error
        if vector.shape != (FEATURES,):
            raise ValidationError(f"send a list of {FEATURES} numbers, not an array of shape {vector.shape}")
        return vector

    def forward(self, data: list[Vector]) -> list[dict[str, float]]:
        size = next(size for size in SIZES if size >= len(data))
        batch = np.zeros((size, FEATURES), np.float32)
        batch[: len(data)] = data
        scores = np.asarray(self.classify(batch))[: len(data)]  # without the padding's
        return [{"label": int(row.argmax()), "score": float(row.max())} for row in scores]


if __name__ == "__main__":
    server = Server()
    # "fork" would copy a process in which JAX may have threads already: "spawn", the default, is what it wants.
    server.append_worker(Classifier, max_batch_size=SIZES[-1])
    server.run()
