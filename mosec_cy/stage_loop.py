"""What a worker process does all day: take a batch, decode, `forward`, encode, answer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from mosec_cy import content_coding, json_codec
from mosec_cy._sender import Sender
from mosec_cy.codec_marks import is_in_place
from mosec_cy.errors import MosecError, MosecTimeoutError
from mosec_cy.item_errors import FATAL, answer_for, error_in_place
from mosec_cy.log import get_logger
from mosec_cy.worker import SSEWorker, Worker

if TYPE_CHECKING:
    from mosec_cy._channel import Channel
    from mosec_cy._payload import Item

logger = get_logger()


def make_decoder(
    channel: Channel, worker: Worker, is_first: bool | None, max_decoded: int | None = None
) -> Callable[[Item], Any]:
    """How this stage turns a payload into an argument of `forward`.

    The built-in codecs and those of the mixins read in place. An override gets a copy of its own, or a view if the
    class asks for it. `max_decoded`: most bytes of a body without its content coding; None: bodies are taken as
    they are.
    """
    if is_first is None:
        first, later = make_decoder(channel, worker, True, max_decoded), make_decoder(channel, worker, False)
        return lambda item: first(item) if item.is_first else later(item)
    cls = type(worker)
    if is_first and max_decoded is not None:
        return _make_coded_decoder(worker, make_decoder(channel, worker, True), max_decoded)
    if is_first:
        if cls.deserialize is Worker.deserialize:
            return json_codec.decode
        if cls.zero_copy or is_in_place(cls.deserialize):
            return lambda item: worker.deserialize(memoryview(item))
        return lambda item: worker.deserialize(bytearray(item))
    if cls.deserialize_ipc is Worker.deserialize_ipc:
        return channel.load_pickle
    if cls.zero_copy or is_in_place(cls.deserialize_ipc):
        return lambda item: worker.deserialize_ipc(channel.payload_view(item))
    return lambda item: worker.deserialize_ipc(channel.plain_pickle(item))


def _make_coded_decoder(worker: Worker, plain: Callable[[Item], Any], max_decoded: int) -> Callable[[Item], Any]:
    cls = type(worker)
    deserialize: Callable[[Any], Any] = worker.deserialize
    if cls.deserialize is not Worker.deserialize and cls.zero_copy:

        def deserialize(body: Any) -> Any:
            return worker.deserialize(memoryview(body))

    def decode(item: Item) -> Any:
        if not item.body_coding:
            return plain(item)
        return deserialize(content_coding.decode(item.body_coding, item, max_decoded))

    return decode


def make_sender(
    channel: Channel, worker: Worker, is_last: bool | None, content_type: int, compresses: bool = False
) -> Callable[[Item, Any], bool]:
    """How this stage answers an item with a result of `forward`; False if there was no memory for it.

    `compresses`: answers to clients get the content coding that they prefer.
    """
    if is_last is None:
        last = make_sender(channel, worker, True, content_type, compresses)
        inner = make_sender(channel, worker, False, content_type)
        return lambda item, value: last(item, value) if item.is_last else inner(item, value)
    cls = type(worker)
    if not is_last and cls.serialize_ipc is Worker.serialize_ipc:
        return channel.publish_pickle
    if not is_last:
        encode: Callable[[Any], Any] = worker.serialize_ipc
    elif cls.serialize is Worker.serialize:
        encode = json_codec.encode
    else:
        encode = worker.serialize
    publish = channel.publish

    def send(item: Item, value: Any) -> bool:
        # The list hands the payload over: a buffer of `new_buffer` is sent as it is only if nobody else holds it.
        return publish(item, [encode(value)], 0, content_type)

    if not (is_last and compresses):
        return send
    compressible = content_coding.is_compressible(worker.resp_mime_type)

    def send_coded(item: Item, value: Any) -> bool:
        outputs = [encode(value)]
        coding = content_coding.encode_answer(item, outputs, compressible)
        return publish(item, outputs, 0, content_type, coding)

    return send_coded


class StageLoop:
    """Serves one row with one worker instance until the row is asked to stop.

    Args:
        channel: the row's connection to core.
        worker: the user's object, warmed up.
        is_first: payloads are request bodies (`deserialize`), else results of the stage before; None: each item says.
        is_last: results are answers (`serialize`), else they go to the next stage; None: each item says.
        content_type: index of the answers' content type in core's table.
        max_decoded: most bytes of a body without its content coding; None: content codings are ignored.
    """

    def __init__(
        self,
        channel: Channel,
        worker: Worker,
        *,
        is_first: bool | None,
        is_last: bool | None,
        content_type: int,
        max_decoded: int | None = None,
    ) -> None:
        self.channel = channel
        self.worker = worker
        self.decode = make_decoder(channel, worker, is_first, max_decoded)
        self.send = make_sender(channel, worker, is_last, content_type, max_decoded is not None)
        self.collect: Callable[[Any], list[Any]] = list
        self.name = f"<{worker.stage}|{worker.worker_id}>"

    def run(self) -> None:
        """Returns when the row was asked to stop and its ring is empty."""
        previous = signal.signal(signal.SIGALRM, self._on_overrun)
        step = self._single if self.worker.max_batch_size == 1 else self._batch
        take = self.channel.take
        try:
            while (items := take()) is not None:
                try:
                    step(items)
                except MosecTimeoutError as error:  # the signal came a moment after `forward` had ended
                    self._fail(items, error)
                del items  # they keep the memory mapped that they came in, also when its core is gone
        finally:
            signal.signal(signal.SIGALRM, previous)

    def _on_overrun(self, signum: int, frame: FrameType | None) -> None:
        if self.channel.overdue():
            raise MosecTimeoutError("`forward` timeout")

    def _single(self, items: list[Item]) -> None:
        channel = self.channel
        for item in items:
            try:
                data = self.decode(item)
                channel.begin_forward()
                value = self.worker.forward(data)
                channel.end_forward()
                data = None  # what nobody looks into any more needs no lease
                self._send(item, value)
            except FATAL:
                raise
            except BaseException as error:
                channel.end_forward()
                self._fail([item], error)
            data = value = None  # nor does a lease last until the next request

    def _batch(self, items: list[Item]) -> None:
        arguments, live = self._decode_all(items)
        if not live:
            return
        try:
            self.channel.begin_forward()
            values = self.collect(self.worker.forward(arguments))
            self.channel.end_forward()
            if len(values) != len(live):
                raise ValueError(f"forward returned {len(values)} results for a batch of {len(live)}")
        except FATAL:
            raise
        except BaseException as error:
            self.channel.end_forward()
            self._fail(live, error)
            return
        del arguments
        for item, value in zip(live, values, strict=True):
            try:
                self._send(item, value)
            except FATAL:
                raise
            except BaseException as error:
                self._fail([item], error)

    def _decode_all(self, items: list[Item]) -> tuple[list[Any], list[Item]]:
        """Arguments and their items; one that cannot be decoded fails alone."""
        arguments, live = [], []
        for item in items:
            try:
                arguments.append(self.decode(item))
                live.append(item)
            except FATAL:
                raise
            except BaseException as error:
                self._fail([item], error)
        if len(live) < len(items):
            self.channel.batch = live
        return arguments, live

    def _send(self, item: Item, value: Any) -> None:
        if isinstance(value, (BaseException, type)) and (error := error_in_place(value)) is not None:
            self._fail([item], error)
        elif not self.send(item, value):
            logger.warning("%s no shared memory was free for an answer: it was failed. Raise --budget", self.name)

    def _fail(self, items: list[Item], error: BaseException) -> None:
        """Answers those of `items` that have no answer yet."""
        status, text = answer_for(error)
        for item in items:
            if not item.answered:
                self.channel.publish_error(item, status, text.encode("utf-8", "replace"))
        if isinstance(error, MosecError):  # after the answers, which do not wait for whoever reads the log
            logger.info("%s %.1000s", self.name, text)  # it may quote the whole request
        else:
            logger.warning("%s %s", self.name, text, exc_info=error)


class StreamLoop(StageLoop):
    """Serves a row whose answers are streams, for those of its tasks that are at the end of their route."""

    worker: SSEWorker

    def __init__(self, channel: Channel, worker: SSEWorker, **place: Any) -> None:
        super().__init__(channel, worker, **place)
        self.collect = self._collect
        self.sender = worker._sender = Sender(channel)

    def _collect(self, returned: Any) -> list[Any]:
        batch = self.channel.batch
        if not all(item.is_last for item in batch):
            return list(returned)
        # What they return is ignored, unless it is a list that may have errors in items' places.
        if isinstance(returned, (list, tuple)) and len(returned) == len(batch):
            return list(returned)
        return [None] * len(batch)

    def _send(self, item: Item, value: Any) -> None:
        if item.is_last and error_in_place(value) is None:
            self.channel.publish_end(item)
            self.sender.stir()
        else:
            super()._send(item, value)

    def _fail(self, items: list[Item], error: BaseException) -> None:
        super()._fail(items, error)
        self.sender.stir()


def serve(channel: Channel, worker: Worker, **place: Any) -> None:
    """Serves one row until it is asked to stop; `place` as for `StageLoop`."""
    if isinstance(worker, SSEWorker):  # also where it is never the last stage: it is told so when it sends
        StreamLoop(channel, worker, **place).run()
    else:
        StageLoop(channel, worker, **place).run()
