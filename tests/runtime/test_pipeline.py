import threading
import time

import pytest

from streampose.runtime.pipeline import read_ahead


def alive():
    return [t for t in threading.enumerate() if t.name == "streampose-read-ahead" and t.is_alive()]


def test_everything_arrives_in_order_through_two_stages():
    with read_ahead(range(100), 4) as first, read_ahead((2 * n for n in first), 3) as second:
        assert list(second) == [2 * n for n in range(100)]
    assert not alive()


def test_memory_is_bounded_by_the_depth():
    made = []

    def items():
        for n in range(1000):
            made.append(n)
            yield n

    with read_ahead(items(), 5) as ahead:
        assert next(ahead) == 0
        time.sleep(0.2)
        assert len(made) <= 8
    assert not alive()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("torn tape")

    got = []
    with pytest.raises(ValueError, match="torn tape"), read_ahead(items(), 4) as a, read_ahead(iter(a), 4) as b:
        for item in b:
            got.append(item)
    assert got == [1, 2] and not alive()


def test_leaving_early_stops_the_threads_and_closes_the_source():
    closed = []

    def items():
        try:
            n = 0
            while True:
                yield n
                n += 1
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt), read_ahead(items(), 2) as a, read_ahead(iter(a), 2) as b:
        for item in b:
            if item == 3:
                raise KeyboardInterrupt
    assert closed == [True] and not alive()


def test_stages_overlap():
    def slow(items):
        for item in items:
            time.sleep(0.01)
            yield item

    began = time.monotonic()
    with read_ahead(slow(range(20)), 4) as a, read_ahead(slow(a), 4) as b:
        for _ in b:
            time.sleep(0.01)
    assert time.monotonic() - began < 0.5  # 0.6 s one after the other
