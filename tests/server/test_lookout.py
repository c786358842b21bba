"""A detector beside the live path."""

import threading
import time

import numpy as np

from streampose.server.lookout import Lookout

IMAGE = np.zeros((10, 10, 3), np.uint8)


def ask(lookout: Lookout, seconds: float = 5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := lookout(IMAGE)) is not None:
            return found
        time.sleep(0.005)
    return None


def test_it_answers_later_and_once():
    release = threading.Event()

    def detect(image):
        release.wait(5)
        return np.array([[1, 2, 3, 4]], np.float32), np.ones(1, np.float32)

    lookout = Lookout(detect, least_seconds=60.0)
    began = time.monotonic()
    assert lookout(IMAGE) is None and lookout(IMAGE) is None
    assert time.monotonic() - began < 1.0
    release.set()
    np.testing.assert_array_equal(ask(lookout), [[1, 2, 3, 4]])
    assert lookout(IMAGE) is None


def test_one_look_at_a_time():
    running, most, lock = [0], [0], threading.Lock()

    def detect(image):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)

    lookout = Lookout(detect, least_seconds=0.0)
    for _ in range(100):
        lookout(IMAGE)
        time.sleep(0.001)
    assert most[0] == 1


def test_a_detector_that_fails_ends_nothing(caplog):
    def detect(image):
        raise RuntimeError("out of memory")

    lookout = Lookout(detect, least_seconds=0.0)
    assert ask(lookout, 0.2) is None
    assert sum("the detector failed" in record.message for record in caplog.records) <= 1
