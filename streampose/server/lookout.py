"""Looks for subjects with a detector that is too slow for the live path: beside it, on the newest picture."""

from __future__ import annotations

import threading
import time

import numpy as np

from streampose.console import logger
from streampose.tracking.detectors import Detect

LEAST_SECONDS = 0.3  # between the beginnings of two looks


class Lookout:
    """A detector that is asked at once and answers later; what it found is given out once.

    Args:
        detect: see `tracking.detectors`.
        least_seconds: between two looks.
    """

    def __init__(self, detect: Detect, least_seconds: float = LEAST_SECONDS):
        self._detect, self._least_seconds = detect, least_seconds
        self._lock = threading.Lock()
        self._found: np.ndarray | None = None
        self._busy, self._began = False, -np.inf
        self._failed = False

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Look at a picture beside the caller, if none is being looked at.

        Returns:
            (N, 4) float32 boxes of the last picture that was looked at, best first; None where there is no news.
        """
        with self._lock:
            found, self._found = self._found, None
            now = time.monotonic()
            if self._busy or self._failed or now - self._began < self._least_seconds:
                return found
            self._busy, self._began = True, now
        threading.Thread(target=self._look, args=(image,), name="lookout", daemon=True).start()
        return found

    def _look(self, image: np.ndarray) -> None:
        found, failed = None, False
        try:
            found = np.asarray(self._detect(image)[0], np.float32).reshape(-1, 4)
        except Exception as error:  # a detector of the user's may fail in any way; the live path goes on
            failed = True
            logger.error("the detector failed (%s: %s); nobody new is found from now on", type(error).__name__, error)
        finally:
            with self._lock:
                self._found, self._busy, self._failed = found, False, failed
