import threading
import time

import pytest

from streampose.video.ahead import ahead


def alive():
    return [t for t in threading.enumerate() if t.name == "ahead" and t.is_alive()]


def test_everything_arrives_in_order_through_two_stages():
    with ahead(range(100), 4) as first, ahead((2 * n for n in first), 3) as second:
        assert list(second) == [2 * n for n in range(100)]
    assert not alive()


def test_memory_is_bounded_by_the_depth():
    made = []

    def items():
        for n in range(1000):
            made.append(n)
            yield n

    with ahead(items(), 5) as items_ahead:
        assert next(items_ahead) == 0
        time.sleep(0.2)
        assert len(made) <= 8
    assert not alive()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("torn tape")

    got = []
    with pytest.raises(ValueError, match="torn tape"), ahead(items(), 4) as a, ahead(iter(a), 4) as b:
        for item in b:
            got.append(item)
    assert got == [1, 2] and not alive()


def test_leaving_early_stops_the_threads():
    def items():
        n = 0
        while True:
            yield n
            n += 1

    with pytest.raises(KeyboardInterrupt), ahead(items(), 2) as a, ahead(iter(a), 2) as b:
        for item in b:
            if item == 3:
                raise KeyboardInterrupt
    assert not alive()


def test_stages_overlap():
    def slow(items):
        for item in items:
            time.sleep(0.01)
            yield item

    began = time.monotonic()
    with ahead(slow(range(20)), 4) as a, ahead(slow(a), 4) as b:
        for _ in b:
            time.sleep(0.01)
    assert time.monotonic() - began < 0.5  # 0.6 s one after the other
