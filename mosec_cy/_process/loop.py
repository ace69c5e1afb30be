"""What a worker process does all day: take a batch, decode, `forward`, encode, answer."""

from __future__ import annotations

import operator
import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from mosec_cy._base import replica
from mosec_cy._base.mistakes import MissingResultsError, ResultError
from mosec_cy._codecs import json_codec
from mosec_cy._engine.worker import Sender
from mosec_cy._process import codings
from mosec_cy._process.results import (
    FATAL,
    FINISHED,
    answer_for,
    as_batch,
    as_ends,
    as_outcomes,
    error_in_place,
    finish,
    interrupt_coroutine,
    is_unfinished,
    unfinished,
)
from mosec_cy.errors import MosecError, MosecTimeoutError
from mosec_cy.log import get_logger
from mosec_cy.worker import BaseWorker, StepWorker, is_in_place, steps, streams

if TYPE_CHECKING:
    from mosec_cy._engine.worker import Channel, Item

logger = get_logger()
_MOST_COST = (1 << 32) - 1


def _function(method: Any) -> Any:
    """What a bound method runs. (A codec of the user's may also be an attribute of the object, and any callable.)"""
    return getattr(method, "__func__", method)


def make_decoder(
    channel: Channel, worker: BaseWorker, is_first: bool | None, max_decoded: int | None = None
) -> Callable[[Item], Any]:
    """How this stage turns a payload into an argument of `forward`.

    The built-in codecs and those of the mixins read in place. An override gets a copy of its own, or a view if the
    class asks for it. `max_decoded`: most bytes of a body without its content coding; None: bodies are taken as
    they are.
    """
    if is_first is None:
        first, later = make_decoder(channel, worker, True, max_decoded), make_decoder(channel, worker, False)
        return lambda item: first(item) if item.is_first else later(item)
    if is_first and max_decoded is not None:
        return _make_coded_decoder(worker, make_decoder(channel, worker, True), max_decoded)
    zero_copy = type(worker).zero_copy is True  # a method of that name is the user's
    function = _function(worker.deserialize if is_first else worker.deserialize_ipc)
    if is_first:
        if function is BaseWorker.deserialize:
            return json_codec.decode
        if zero_copy or is_in_place(function):
            return lambda item: worker.deserialize(memoryview(item))
        return lambda item: worker.deserialize(bytearray(item))
    if function is BaseWorker.deserialize_ipc:
        return channel.load_pickle
    if zero_copy or is_in_place(function):
        return lambda item: worker.deserialize_ipc(channel.payload_view(item))
    return lambda item: worker.deserialize_ipc(channel.plain_pickle(item))


def _make_coded_decoder(worker: BaseWorker, plain: Callable[[Item], Any], max_decoded: int) -> Callable[[Item], Any]:
    deserialize: Callable[[Any], Any] = worker.deserialize
    if _function(deserialize) is not BaseWorker.deserialize and type(worker).zero_copy is True:

        def deserialize(body: Any) -> Any:
            return worker.deserialize(memoryview(body))

    def decode(item: Item) -> Any:
        if not item.body_coding:
            return plain(item)
        return deserialize(codings.decode(item.body_coding, item, max_decoded))

    return decode


def make_sender(
    channel: Channel, worker: BaseWorker, is_last: bool | None, content_type: int, compresses: bool = False
) -> Callable[[Item, Any], bool]:
    """How this stage answers an item with a result of `forward`; False if there was no memory for it.

    `compresses`: answers to clients get the content coding that they prefer.
    """
    if is_last is None:
        last = make_sender(channel, worker, True, content_type, compresses)
        inner = make_sender(channel, worker, False, content_type)
        return lambda item, value: last(item, value) if item.is_last else inner(item, value)
    encode: Callable[[Any], Any] = worker.serialize if is_last else worker.serialize_ipc
    if _function(encode) is BaseWorker.serialize_ipc:
        return channel.publish_pickle
    if _function(encode) is BaseWorker.serialize:
        encode = json_codec.encode
    publish = channel.publish

    def send(item: Item, value: Any) -> bool:
        # The list passes the payload on: a buffer of `new_buffer` is sent as it is only if nothing else refers to it.
        return publish(item, [encode(value)], 0, content_type)

    if not (is_last and compresses):
        return send
    compressible = codings.is_compressible(type(worker).resp_mime_type)

    def send_coded(item: Item, value: Any) -> bool:
        outputs = [encode(value)]
        coding = codings.encode_answer(item, outputs, compressible)
        return publish(item, outputs, 0, content_type, coding)

    return send_coded


def with_costs(send: Callable[[Item, Any], bool], worker: Any) -> Callable[[Item, Any], bool]:
    """As `send`, and the next stage is told what the result costs there."""

    def send_with_cost(item: Item, value: Any) -> bool:
        if not item.is_last:
            cost = worker.cost(value)
            try:
                item.cost = operator.index(cost)
            except (TypeError, OverflowError):
                raise ResultError(
                    f"cost returned {cost!r}: it must return a whole number from 0 to {_MOST_COST}"
                ) from None
        return send(item, value)

    return send_with_cost


class StageLoop:
    """Serves one slot with one worker instance until the slot is asked to stop.

    Args:
        channel: the slot's connection to core.
        worker: the user's object, warmed up.
        is_first: payloads are request bodies (`deserialize`), else results of the stage before; None: each item says.
        is_last: results are answers (`serialize`), else they go to the next stage; None: each item says.
        tells_costs: the next stage is told what each result costs there, by the worker's `cost`.
        content_type: index of the answers' content type in core's table.
        max_decoded: most bytes of a body without its content coding; None: content codings are ignored.
    """

    limited = "`forward`"  # by the stage's time-out

    def __init__(
        self,
        channel: Channel,
        worker: BaseWorker,
        *,
        is_first: bool | None,
        is_last: bool | None,
        content_type: int,
        max_decoded: int | None = None,
        tells_costs: bool = False,
    ) -> None:
        self.channel = channel
        self.worker = worker
        self.decode = make_decoder(channel, worker, is_first, max_decoded)
        self.send = make_sender(channel, worker, is_last, content_type, max_decoded is not None)
        if tells_costs:
            self.send = with_costs(self.send, worker)
        self.replica = replica.of(worker)
        self.name = self.replica.name

    def run(self) -> None:
        """Returns when the slot was asked to stop and its ring is empty."""
        previous = signal.signal(signal.SIGALRM, self._on_overrun)
        try:
            self._serve()
        finally:
            signal.signal(signal.SIGALRM, previous)

    def _serve(self) -> None:
        work = self._single if self.replica.max_batch_size == 1 else self._batch
        take = self.channel.take
        while (items := take()) is not None:
            try:
                work(items)
            except MosecTimeoutError as error:  # the signal came a moment after `forward` had ended
                self._fail(items, error)
            del items  # they keep the memory mapped that they came in, also when its core is gone

    def _on_overrun(self, signum: int, frame: FrameType | None) -> None:
        if self.channel.overdue() and not interrupt_coroutine():
            raise MosecTimeoutError(f"{self.limited} timeout")

    def _single(self, items: list[Item]) -> None:
        channel = self.channel
        for item in items:
            try:
                data = self.decode(item)
                channel.begin_forward()
                value = self.worker.forward(data)
                if type(value) not in FINISHED:
                    value = self._finish(value)
                channel.end_forward()
                data = None  # what no object looks into any more needs no lease
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
            values = self._results(self.worker.forward(arguments))
            self.channel.end_forward()
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

    def _finish(self, returned: Any) -> Any:
        """The result of one item."""
        return finish(returned, None, None)

    def _results(self, returned: Any) -> list[Any]:
        """The results of the batch."""
        size = len(self.channel.batch)
        if type(returned) is list and len(returned) == size:
            return returned
        return as_batch(finish(returned, size, None), size)

    def _send(self, item: Item, value: Any) -> None:
        if type(value) not in FINISHED and (error := error_in_place(value)) is not None:
            self._fail([item], error)
            return
        try:
            sent = self.send(item, value)
        except Exception as error:
            if is_unfinished(value):
                raise unfinished(value) from error
            raise
        if not sent:
            logger.warning("%s no shared memory was free for an answer: it was failed. Raise --budget", self.name)

    def _fail(self, items: list[Item], error: BaseException) -> None:
        """Answers those of `items` that have no answer yet."""
        status, text = answer_for(error)
        for item in items:
            if not item.answered:
                self.channel.answer(item, status, text.encode("utf-8", "replace"))
        # After the answers, which do not wait for the reader of the log.
        if isinstance(error, (ResultError, MissingResultsError)):
            logger.warning("%s %s", self.name, error)  # the traceback would be of this module
        elif isinstance(error, MosecError):
            logger.info("%s %.1000s", self.name, text)  # it may quote the whole request
        else:
            logger.warning("%s %s", self.name, text, exc_info=error)


class StreamLoop(StageLoop):
    """Serves a slot whose answers are streams, for those of its tasks that are at the end of their route."""

    def __init__(self, channel: Channel, worker: BaseWorker, **place: Any) -> None:
        super().__init__(channel, worker, **place)
        self.sender = self.replica.sender = Sender(channel)

    def _finish(self, returned: Any) -> Any:
        send = self.sender.send if self.channel.batch[0].is_last else None
        return finish(returned, None, send)

    def _results(self, returned: Any) -> list[Any]:
        batch = self.channel.batch
        places = {item.is_last for item in batch}
        returned = finish(returned, len(batch), self.sender.send if True in places else None)
        return as_batch(returned, len(batch)) if False in places else as_ends(returned, len(batch))

    def _send(self, item: Item, value: Any) -> None:
        if item.is_last and error_in_place(value) is None:
            self.channel.publish_end(item)
            self.sender.wake()
        else:
            super()._send(item, value)

    def _fail(self, items: list[Item], error: BaseException) -> None:
        super()._fail(items, error)
        self.sender.wake()


class StepLoop(StageLoop):
    """Serves a slot by steps of a running batch, which tasks join and leave one by one."""

    worker: StepWorker
    limited = "`start` or `step`"

    def __init__(self, channel: Channel, worker: StepWorker, **place: Any) -> None:
        super().__init__(channel, worker, **place)
        self.items: list[Item] = []  # what is inside, in the order of joining; never changed, but replaced
        self.states: list[Any] = []  # of each its state
        self.sender: Sender | None = None
        if streams(type(worker)):
            self.sender = self.replica.sender = Sender(channel, self.replica.max_batch_size == 1)

    def _serve(self) -> None:
        while True:
            try:
                if not self.items and not self._wait():
                    return
                self._join()
                if self.items and self.channel.has_cancelled(self.items):
                    self._drop_cancelled()
                if self.items:
                    self._step()
            except MosecTimeoutError as error:  # the signal came a moment after `start` or `step` had ended
                self._fail_batch(error)

    def _wait(self) -> bool:
        """Have the next task join; false: the slot was asked to stop."""
        items = self.channel.take()
        for item in items or ():
            self._start(item)
        return items is not None

    def _join(self) -> None:
        """Take what core has dispatched meanwhile. It keeps to `max_batch_size`; the bound is for those that fail."""
        for _ in range(self.replica.max_batch_size):
            item = self.channel.join()
            if item is None:
                return
            self._start(item)

    def _start(self, item: Item) -> None:
        channel = self.channel
        channel.batch = [item]
        try:
            data = self.decode(item)
            channel.begin_forward()
            state = self.worker.start(data)
            channel.end_forward()
        except FATAL:
            raise
        except BaseException as error:
            channel.end_forward()
            self._fail([item], error)
        else:
            self.items = [*self.items, item]
            self.states.append(state)

    def _step(self) -> None:
        channel, items = self.channel, self.items
        try:
            channel.begin_step(items)
            outcomes = as_outcomes(self.worker.step(self.states), len(items))
            channel.end_forward()
            if len(self.states) != len(items):
                raise ResultError(f"step has left {len(self.states)} of {len(items)} states in its list")
        except FATAL:
            raise
        except BaseException as error:
            channel.end_forward()
            self._fail_batch(error)
            return
        if any(done for done, _ in outcomes):
            self._keep([place for place, (done, _) in enumerate(outcomes) if not done])
            for item, (done, output) in zip(items, outcomes, strict=True):
                if done:
                    self._end(item, output)

    def _keep(self, places: list[int]) -> None:
        self.items, self.states = [self.items[place] for place in places], [self.states[place] for place in places]

    def _end(self, item: Item, output: Any) -> None:
        try:
            self._send(item, output)
        except FATAL:
            raise
        except BaseException as error:
            self._fail([item], error)

    def _send(self, item: Item, value: Any) -> None:
        if self.sender is not None and item.is_last and error_in_place(value) is None:
            self.channel.publish_end(item)
            self.sender.wake()
        else:
            super()._send(item, value)

    def _drop_cancelled(self) -> None:
        """No client waits for them any more; core waits for their places."""
        is_cancelled = self.channel.is_cancelled
        gone = [item for item in self.items if is_cancelled(item)]
        self._keep([place for place, item in enumerate(self.items) if item not in gone])
        for item in gone:
            self.channel.answer(item, 408, b"")
        if self.sender is not None:
            self.sender.wake()

    def _fail_batch(self, error: BaseException) -> None:
        """What `start` or `step` has worked on."""
        batch = self.channel.batch
        self._keep([place for place, item in enumerate(self.items) if item not in batch])
        self._fail(batch, error)

    def _fail(self, items: list[Item], error: BaseException) -> None:
        super()._fail(items, error)
        if self.sender is not None:
            self.sender.wake()


def serve(channel: Channel, worker: BaseWorker, **place: Any) -> None:
    """Serves one slot until it is asked to stop; `place` as for `StageLoop`."""
    if steps(type(worker)):
        StepLoop(channel, cast(StepWorker, worker), **place).run()
    elif streams(type(worker)):  # also where it is never the last stage: it is told so when it sends
        StreamLoop(channel, worker, **place).run()
    else:
        StageLoop(channel, worker, **place).run()
