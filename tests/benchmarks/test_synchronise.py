"""How often the offset between two cameras is found from what moves, and how often it is wrongly believed.

Run with `pytest -m benchmark tests/benchmarks/test_synchronise.py -s`.
"""

from itertools import combinations

import numpy as np
import pytest

from streampose.synth import synth
from streampose.video.synchronise import SURE, Signal, match_motion, read_motion

SCENES, SECONDS = 8, 8


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    synth(out=folder, videos=SCENES, seconds=SECONDS, cameras=3, size=(128, 128), seed=11)
    return {path.stem: read_motion(path) for path in folder.glob("*.mp4")}


def part(signal, start, seconds):
    first = max(0, int((start - signal.start_seconds) * signal.rate))
    last = int((start + seconds - signal.start_seconds) * signal.rate)
    begin = signal.start_seconds + first / signal.rate - start
    return Signal(signal.values[:, first:last], signal.rate, begin, signal.resolution_seconds)


@pytest.mark.benchmark
@pytest.mark.parametrize(("seconds", "least_right", "most_believed"), [(4, 0.6, 0.1), (5, 0.9, 0.1), (6, 0.95, 0.1)])
def test_offsets_from_motion(signals, seconds, least_right, most_believed):
    rng = np.random.default_rng(0)
    right, wrong, unrelated, errors = [], [], [], []
    for scene in range(SCENES):
        for one, other in combinations(range(3), 2):
            for _ in range(4):
                a, b = rng.uniform(0, SECONDS - seconds, 2)
                offset, confidence = match_motion(
                    part(signals[f"video_{scene:03d}_cam{one}"], a, seconds),
                    part(signals[f"video_{scene:03d}_cam{other}"], b, seconds),
                )
                error = abs(offset - (b - a))
                (right if error < 1 / 25 else wrong).append(confidence)
                errors += [error] if error < 1 / 25 else []
        for shift in range(1, SCENES):
            stranger = signals[f"video_{(scene + shift) % SCENES:03d}_cam{shift % 3}"]
            here = part(signals[f"video_{scene:03d}_cam0"], 1, seconds)
            unrelated.append(match_motion(here, part(stranger, 1.5, seconds))[1])
    believed = np.mean(np.array(wrong + unrelated) >= SURE)
    print(
        f"\n{seconds} s: {len(right)} of {len(right) + len(wrong)} right to {1000 * np.median(errors):.1f} ms, "
        f"{np.mean(np.array(right) >= SURE):.0%} of them believed; {believed:.0%} of wrong or unrelated ones believed"
    )
    assert len(right) / (len(right) + len(wrong)) >= least_right and believed <= most_believed
