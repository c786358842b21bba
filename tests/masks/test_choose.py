import re

import cv2
import numpy as np
import pytest

from streampose.masks.background import Background
from streampose.masks.choose import choose_masks

W, H = 160, 120


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(cv2.resize(rng.integers(30, 220, (60, 90, 3), dtype=np.uint8), (360, 240)), (3, 3), 0.8)


def view(world, x=0, y=0):
    return np.ascontiguousarray(world[60 + y : 60 + y + H, 60 + x : 60 + x + W])


def empty(world):
    return Background(view(world), np.zeros((H, W), np.float32))


def test_a_camera_that_stands_still_gets_a_background_model(world):
    for sam in (False, True):
        choice = choose_masks("auto", empty(world), [view(world)] * 5, 25, sam=sam)
        assert (choice.source, choice.sam, choice.name) == ("mog2", False, "mog2")
        assert choice.reason == "the camera stands still and its empty scene is known"


def test_a_moving_camera_gets_motion_compensation_or_sam(world):
    pictures = [view(world, 2 * n, n) for n in range(6)]  # 11 pixels in a fifth of a second
    choice = choose_masks("auto", None, pictures, 25)
    assert (choice.source, choice.sam) == ("moving", False)
    found = re.fullmatch(r"the camera moves by (.*)% of the picture a second", choice.reason)
    assert found and float(found[1]) == pytest.approx(100 * np.hypot(10, 5) / 160 * 25 / 5, rel=0.02)
    drawn = choose_masks("auto", None, pictures, 25, sam=True)
    assert drawn.source == "moving" and drawn.sam and drawn.name == "moving+sam" and "Segment Anything" in drawn.reason


def test_reasons_tell_what_was_seen(world):
    assert "too short" in choose_masks("auto", None, [view(world)] * 5, 25).reason
    assert "elsewhere" in choose_masks("auto", empty(world), [view(world, 40, 20)] * 5, 25).reason
    blank = np.full((H, W, 3), 80, np.uint8)
    assert "too few details" in choose_masks("auto", None, [blank] * 5, 25).reason
    assert "too few details" in choose_masks("auto", None, [view(world)], 25).reason


@pytest.mark.parametrize("asked", ["mog2", "knn", "median", "moving", "none"])
def test_what_was_asked_for_is_done(world, asked):
    choice = choose_masks(asked, None, [view(world)] * 3, 25, sam=True)
    assert choice.source == asked and not choice.sam and "asked for" in choice.reason


def test_sam_finds_its_subjects_by_motion(world):
    assert choose_masks("sam", empty(world), [view(world)] * 3, 25, sam=True).name == "mog2+sam"
    moving = [view(world, 2 * n) for n in range(6)]
    assert choose_masks("sam", None, moving, 25, sam=True).name == "moving+sam"


def test_a_moving_camera_that_pauses_goes_on_as_one(world):
    moving = choose_masks("auto", None, [view(world, 2 * n) for n in range(6)], 25)
    still = [view(world)] * 5
    assert choose_masks("auto", empty(world), still, 25, before=moving, scene_seconds=1.0) is moving
    assert choose_masks("auto", None, still[:1], 25, before=moving) is moving
    assert choose_masks("auto", empty(world), still, 25, before=moving, scene_seconds=9.0).source == "mog2"
    static = choose_masks("auto", empty(world), still, 25)
    assert choose_masks("auto", None, [view(world, 2 * n) for n in range(6)], 25, before=static).source == "moving"
    assert choose_masks("sam", empty(world), still, 25, before=moving, scene_seconds=1.0) is moving
