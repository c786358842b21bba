import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.priors.draw import LEFT, RIGHT, draw_pose, turning_sheet
from streampose.priors.pages import spread_out, write_prior_page
from streampose.priors.statistics import describe_prior
from streampose.store.priors import Prior
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module")
def prior():
    return built_in_prior(HUMAN, 320, seed=4)


def test_statistics(prior):
    numbers = describe_prior(prior, HUMAN)
    assert (numbers["poses"], numbers["takes"], numbers["group_sizes"]) == (320, 10, [32, 32, 32])
    assert numbers["seconds"] == pytest.approx(10 * 31 / 3)
    assert len(numbers["bones"]) == 16 and 0.3 < numbers["bones"]["right_hip-right_knee"]["mean"] < 0.5
    assert numbers["moves"]["pelvis"] == 0 and numbers["moves"]["left_wrist"] > 0.3
    gap = prior.poses.copy()
    gap[:80, 3] = np.nan
    gap[:, 5] = np.nan
    numbers = describe_prior(Prior("gap", gap, HUMAN.joints, prior.groups), HUMAN)
    assert numbers["known"]["right_ankle"] == 0.75 and "left_knee-left_ankle" not in numbers["bones"]
    assert numbers["seconds"] is None and "left_knee" not in numbers["moves"]
    json.dumps(numbers)


def test_pictures_show_left_and_right_and_turn(prior):
    pose = np.zeros((17, 3))
    pose[:, 1] = np.linspace(-0.8, 0.8, 17)
    left, right = np.array(HUMAN.flip_pairs).T
    pose[left, 0], pose[right, 0] = 0.5, -0.5
    picture = draw_pose(pose, HUMAN, 100)
    blue, orange = ((picture == colour).all(-1).nonzero()[1] for colour in (LEFT, RIGHT))
    assert blue.mean() > 60 and orange.mean() < 40 and len(blue) > 20
    turned = turning_sheet(pose[None], HUMAN, views=2, size=100)
    assert turned.shape == (100, 200, 3)
    assert (turned[:, 100:] == LEFT).all(-1).nonzero()[1].mean() < 40  # seen from behind
    pose[3] = np.nan
    draw_pose(pose, HUMAN, 20)


def test_shown_poses_differ(prior):
    same = Prior("same", np.concatenate([prior.poses[:1]] * 500 + [prior.poses[:5]]), HUMAN.joints, ["g"] * 505)
    index = spread_out(same, 12, np.random.default_rng(0))
    assert len(set(index)) == 12 and sum(index >= 500) >= 4


def test_a_page_of_3d_2d_and_bare_points(prior, tmp_path):
    for name, one in (
        ("3d", prior), ("2d", Prior("flat", prior.poses[..., :2], HUMAN.joints, prior.groups)),
        ("points", Prior("face", prior.poses[..., :2], [f"p{k}" for k in range(17)], prior.groups)),
    ):  # fmt: skip
        files = write_prior_page(tmp_path / name, one, HUMAN, describe_prior(one, HUMAN))
        assert (cv2.imread(files["sheet"]) < 128).any() and "<table>" in Path(files["page"]).read_text()
        assert (files["turning"] is None) == (name != "3d")
    text = (tmp_path / "3d" / "turning.html").read_text()
    content = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.S)[1])
    assert len(content["bones"]) == 16 and len(content["takes"]) == 10 and len(content["takes"][0]["poses"]) == 32
    assert "http" not in text  # it needs nothing from elsewhere


def test_poses_turn_in_a_browser(prior, tmp_path):
    browser = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not browser:
        pytest.skip("needs chromium")
    files = write_prior_page(tmp_path, prior, HUMAN, describe_prior(prior, HUMAN))
    call = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=400,400",
        "--virtual-time-budget=2000",
    ]
    subprocess.run(
        [*call, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shot.png'}",
         f"file://{files['turning']}"], check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    shot = cv2.imread(str(tmp_path / "shot.png"))
    blue, orange = (np.abs(shot.astype(int) - colour).max(-1) < 20 for colour in ((216, 130, 58), (30, 130, 232)))
    assert blue.sum() > 100 and orange.sum() > 100
