"""NumPy arrays between stages in the NumBin format."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeVar

from mosec_cy.errors import DecodingError, EncodingError
from mosec_cy.worker import BaseWorker, load_extra, reads_in_place

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Self = TypeVar("Self", bound="NumBinIPCMixin")

ALIGNMENT = 64  # bytes; of an array's data in shared memory
MAX_LENGTH = 0xFFFF  # of one dimension: the format has 16 bits for it


class NumBinIPCMixin(BaseWorker):
    """The result is one NumPy array, which goes to the next stage in the NumBin format; both stages mix this in.

    An array is written into shared memory once, and the next stage gets a writable view of it.
    """

    def __new__(cls: type[Self], *args: Any, **kwargs: Any) -> Self:
        load_extra("numbin", cls.__qualname__)  # a worker without it would fail each request
        return super().__new__(cls)

    def serialize_ipc(self, data: Any) -> Any:
        """Encode an array (or scalar of NumPy) of booleans or numbers, each dimension at most 65535 long.

        Raises:
            EncodingError: the result is something else.
        """
        import numpy as np

        if isinstance(data, np.generic):  # what arithmetic makes of an array without dimensions
            data = np.asarray(data)
        if not isinstance(data, np.ndarray):
            raise EncodingError(f"NumBin holds one NumPy array, not {type(data).__name__}")
        dtype = data.dtype.newbyteorder("=")
        header = _header(data.shape, dtype)
        start = -len(header) % ALIGNMENT
        buffer = BaseWorker.new_buffer(self, start + len(header) + data.nbytes)[start:]
        buffer[: len(header)] = header
        np.ndarray(data.shape, dtype, buffer, len(header))[...] = data
        return buffer

    @reads_in_place
    def deserialize_ipc(self, data: Any) -> Any:
        """Decode what `serialize_ipc` encoded: an array that looks into `data`.

        Raises:
            DecodingError: it is not in the NumBin format.
        """
        import numbin

        try:
            return numbin.loads(data)
        except Exception as error:  # struct, KeyError, ValueError: all about the data
            raise DecodingError(f"not an array in the NumBin format: {error!r}") from error


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What the format puts before the data: type, number of dimensions, dimensions; 16 bits each, little-endian."""
    import numbin
    import numpy as np

    if any(length > MAX_LENGTH for length in shape):
        raise EncodingError(f"NumBin holds dimensions of up to {MAX_LENGTH}, not an array of shape {shape}")
    try:
        kind = numbin.dumps(np.empty(0, dtype))[:2]
    except KeyError:
        raise EncodingError(f"NumBin holds booleans and numbers, not {dtype}") from None
    return kind + struct.pack(f"<{1 + len(shape)}H", len(shape), *shape)
