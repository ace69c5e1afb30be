"""The ring's two ends and the doorbell's states, in one process."""

import mmap
import struct

import pytest

from tests.drivers.ring import BELL_BYTES, DESCRIPTOR_BYTES, Doorbell, Ring

HEAD, TAIL, SLOTS = 0, 64, 128
EXTREMES = tuple(2**bits - 1 for bits in (64, 32, 32, 64, 32, 32, 32, 16, 16, 32))


def descriptor(task: int) -> tuple[int, ...]:
    return (task, 2, 3, 4, 5, 6, 7, 8, 9, 10)


def ends(capacity: int) -> tuple[mmap.mmap, Ring, Ring]:
    memory = mmap.mmap(-1, Ring.bytes_needed(capacity))
    return memory, Ring(memory, capacity), Ring(memory, capacity)


def test_a_descriptor_is_one_cache_line() -> None:
    assert DESCRIPTOR_BYTES == 64
    assert Ring.bytes_needed(8) == SLOTS + 8 * 64


@pytest.mark.parametrize("values", [EXTREMES, (0,) * 10, tuple(range(10))])
def test_every_field_arrives_as_sent(values: tuple[int, ...]) -> None:
    _, producer, consumer = ends(4)
    assert producer.push(values)
    producer.publish()
    assert consumer.pop() == values


def test_what_is_not_published_is_not_seen() -> None:
    _, producer, consumer = ends(4)
    producer.push(descriptor(1))
    assert not consumer.has_news()
    assert consumer.pop() is None
    producer.publish()
    assert consumer.has_news()
    assert consumer.pop() == descriptor(1)
    assert not consumer.has_news()


def test_slots_come_back_only_when_released() -> None:
    _, producer, consumer = ends(2)
    assert producer.free() == 2
    assert producer.push(descriptor(1)) and producer.push(descriptor(2))
    assert not producer.push(descriptor(3))
    producer.publish()
    consumer.pop()
    assert producer.free() == 0 and not producer.push(descriptor(3))
    consumer.release()
    assert producer.free() == 1 and producer.push(descriptor(3))
    producer.publish()
    assert [consumer.pop(), consumer.pop(), consumer.pop()] == [descriptor(2), descriptor(3), None]


@pytest.mark.parametrize("capacity", [1, 2, 8])
def test_order_holds_over_many_wraps_at_every_fill(capacity: int) -> None:
    _, producer, consumer = ends(capacity)
    sent = received = 0
    for turn in range(20 * capacity):
        for _ in range(turn % capacity + 1):
            assert producer.push(descriptor(sent))
            sent += 1
        producer.publish()
        while (got := consumer.pop()) is not None:
            assert got == descriptor(received)
            received += 1
        consumer.release()
        assert received == sent and producer.free() == capacity


@pytest.mark.parametrize("head", [5, 2**32, 2**63, 2**64 - 1])
def test_an_impossible_head_is_told_to_the_consumer_every_time(head: int) -> None:
    memory, _, consumer = ends(4)
    memory[HEAD : HEAD + 8] = struct.pack("<Q", head)
    assert consumer.has_news()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="corrupt"):
            consumer.pop()


@pytest.mark.parametrize("tail", [5, 2**32, 2**63, 2**64 - 1])
def test_an_impossible_tail_is_told_to_the_producer_and_never_yields_slots(tail: int) -> None:
    memory, producer, _ = ends(4)
    for task in range(4):
        producer.push(descriptor(task))
    memory[TAIL : TAIL + 8] = struct.pack("<Q", tail)
    before = memory[SLOTS:]
    assert producer.free() == 0
    for _ in range(3):
        with pytest.raises(RuntimeError, match="corrupt"):
            producer.push(descriptor(9))
    assert memory[SLOTS:] == before


def test_a_tail_that_goes_back_is_impossible() -> None:
    memory, producer, consumer = ends(4)
    for task in range(2):
        producer.push(descriptor(task))
    producer.publish()
    while consumer.pop():
        consumer.release()
    assert producer.free() == 4 and producer.push(descriptor(2))
    memory[TAIL : TAIL + 8] = struct.pack("<Q", 1)
    assert producer.free() == 3  # what was free stays free
    for task in range(3):
        assert producer.push(descriptor(task))
    with pytest.raises(RuntimeError, match="corrupt"):
        producer.push(descriptor(6))


def test_bad_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring(bytearray(4096), 3)
    with pytest.raises(ValueError, match="power of two"):
        Ring(bytearray(4096), 0)
    with pytest.raises(ValueError, match="fit"):
        Ring(mmap.mmap(-1, 4096), 64)
    with pytest.raises(ValueError, match="fit"):
        Ring(mmap.mmap(-1, 4096), 1, 2**63)
    with pytest.raises(ValueError, match="aligned"):
        Ring(mmap.mmap(-1, 4096), 1, 8)
    with pytest.raises(BufferError):
        Ring(bytes(4096), 1)


def test_memory_is_let_go_with_the_ring() -> None:
    memory, producer, consumer = ends(4)
    with pytest.raises(BufferError):
        memory.close()
    del producer, consumer
    memory.close()
    assert memory.closed


def test_nobody_is_called_who_is_awake() -> None:
    bell = Doorbell(bytearray(BELL_BYTES))
    assert not bell.ring()
    bell.prepare()
    bell.awake()
    assert not bell.ring()


def test_of_several_ringers_one_makes_the_call() -> None:
    memory = bytearray(BELL_BYTES)
    sleeper, ringers = Doorbell(memory), [Doorbell(memory) for _ in range(5)]
    for _ in range(3):
        sleeper.prepare()
        assert [ringer.ring() for ringer in ringers] == [True, False, False, False, False]


def test_a_ring_between_prepare_and_sleep_keeps_the_sleeper_up() -> None:
    bell = Doorbell(bytearray(BELL_BYTES))
    seen = bell.prepare()
    assert bell.ring()
    assert bell.wait(seen, 60_000)  # returns at once, else this would hang for a minute and fail


def test_a_forced_ring_always_moves_the_count() -> None:
    bell = Doorbell(bytearray(BELL_BYTES))
    bell.prepare()
    assert bell.ring()  # as by a ringer that dies before its system call
    seen_again = bell.prepare()
    bell.force()
    assert bell.wait(seen_again, 60_000)


def test_the_count_may_run_over() -> None:
    memory = bytearray(struct.pack("<II", 2**32 - 1, 0))
    bell = Doorbell(memory)
    seen = bell.prepare()
    assert seen == 2**32 - 1
    assert bell.ring()
    assert struct.unpack("<II", memory) == (0, 0)
    assert bell.wait(seen, 60_000)


def test_sleep_ends_with_its_time_out() -> None:
    bell = Doorbell(bytearray(BELL_BYTES))
    assert not bell.wait(bell.prepare(), 1)
