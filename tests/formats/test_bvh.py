import os
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.bvh import read_bvh

TEXT = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT LeftArm
  {
    OFFSET 2 1 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT LeftForeArm
    {
      OFFSET 3 0 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 1 0 0
      }
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
0 10 0 0 0 0 0 0 0 0 0 0
1 10 0 0 0 0 90 0 0 0 0 -90
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "motion.bvh"
        path.write_text(text)
        return path

    return write


def test_reads_joints_and_places_them_in_the_world(write):
    motion = read_bvh(write(TEXT))
    assert motion.names == ("Hips", "LeftArm", "LeftForeArm")
    assert motion.parents.tolist() == [-1, 0, 1] and motion.frame_seconds == 0.04
    rotations, places = motion.world()
    assert np.allclose(places[0], [[0, 10, 0], [2, 11, 0], [5, 11, 0]])
    assert np.allclose(places[1], [[1, 10, 0], [3, 11, 0], [3, 14, 0]])  # turned by 90 degrees about z
    # The forearm turns about its own y after the arm's z: its x axis points along the world's z.
    assert np.allclose(rotations[1, 2] @ [1, 0, 0], [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not a bvh", "line 1"),
        ("", "no line MOTION"),
        (TEXT.replace("Frames: 2", "Frames: 3"), "2 frames found, 3 announced"),
        (TEXT.replace("-90\n", "\n"), "line 25 has 11 values, but the skeleton has 12"),
        (TEXT.replace("-90", "ninety"), "not a number"),
        (TEXT.replace("Yrotation Xrotation", "Yrotation Wrotation"), "unknown or missing channels"),
        (TEXT.replace("Frame Time: 0.04", "Frame Time: 0"), "positive Frame Time"),
        (TEXT[: TEXT.index("Frames")], "no Frame Time"),
    ],
)
def test_damaged_files_are_named_with_the_reason(write, text, reason):
    with pytest.raises(ConfigError, match=reason):
        read_bvh(write(text))


def test_a_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.bvh: cannot be read"):
        read_bvh(tmp_path / "nowhere.bvh")


def test_real_recordings_have_human_proportions():
    folder = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mocap"
    if not folder.is_dir():
        pytest.skip("needs the shared motion files: set STREAMPOSE_DATA to the data folder")
    motion = read_bvh(folder / "cmu_dance_martial" / "martial_04.bvh")
    assert motion.rotations.shape[0] == 329 and motion.frame_seconds == pytest.approx(1 / 30, abs=1e-3)
    names, (_, places) = list(motion.names), motion.world()
    feet, head = places[:, [names.index("lFoot"), names.index("rFoot")], 1], places[:, names.index("head"), 1]
    thigh = np.linalg.norm(motion.offsets[names.index("lShin")])
    assert 3 < np.median(head - feet.min(1)) / thigh < 4.2  # the head stands three to four thighs over the feet
    assert np.allclose(np.linalg.det(motion.rotations), 1)
