"""The method hypotheses: examples, one step, that it learns, and that it runs on any skeleton."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError, TrainingError
from streampose.evaluation.lifted import calibrate, coverage, measure_lifter, photograph
from streampose.export_lifter import eager_lifting
from streampose.geometry.template import bone_lengths, rest_pose, template_joints
from streampose.methods.hypotheses import (
    HypothesesTask,
    TurnRound,
    load_hypotheses_config,
    make_hypotheses_task,
    rotation_to,
)
from streampose.methods.hypotheses_data import (
    FEWEST_SEEN,
    add_noise,
    detect_joints,
    find_prior,
    hide_joints,
    make_examples,
    random_turns,
)
from streampose.store.priors import Prior, write_prior
from streampose.store.reader import StoreReader
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.training.engine import weighted_sum
from streampose.video.walker import draw_walker

HUMAN = load_skeleton("human17")
NOTHING = np.zeros((0, 17, 2)), np.zeros((0, 17))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prior():
    return built_in_prior(HUMAN, 512, 0)


def make_task(prior: Prior, *changes: str) -> HypothesesTask:
    config = load_hypotheses_config("tiny", None, ["batch_size=16", "views=2", *changes])
    torch.manual_seed(config.seed)
    return HypothesesTask(make_examples(*prior.split(0.2), HUMAN, config, *NOTHING), HUMAN, config)


def step(task: HypothesesTask, optimiser: torch.optim.Optimizer, n: int) -> dict[str, float]:
    torch.manual_seed(n)
    terms, weights = task.loss(task.batch(n), n)
    optimiser.zero_grad()
    weighted_sum(terms, weights).backward()
    optimiser.step()
    return {name: float(term.detach()) for name, term in terms.items()}


def test_examples_are_aligned_of_one_size_and_mirrored(prior):
    examples = make_task(prior).examples
    lengths = bone_lengths(examples.poses, HUMAN).sum(1)
    np.testing.assert_allclose(lengths, examples.size, rtol=1e-4)
    assert np.sqrt((examples.poses**2).mean()) == pytest.approx(1, rel=1e-3)
    assert 9 < examples.proportion[0] < examples.proportion[1] < 25
    half = len(examples.poses) // 2
    mirrored = examples.poses[:half, HUMAN.flip_index] * (-1, 1, 1)
    np.testing.assert_allclose(examples.poses[half:], mirrored, atol=1e-6)
    assert 3.5 < examples.metres < 5.0  # all bones of a person together
    assert not set(examples.train.groups) & set(examples.test.groups)


def test_batches_depend_on_seed_and_step_only(prior):
    one, other = make_task(prior), make_task(prior)
    other.batch(0)
    for name, values in one.batch(7).items():
        torch.testing.assert_close(values, other.batch(7)[name])
    assert not torch.equal(one.batch(7)["joints"], one.batch(8)["joints"])


def test_every_term_reaches_its_network(prior):
    task = make_task(prior)
    terms, weights = task.loss(task.batch(0), 0)
    assert terms.keys() == weights.keys() == {
        "critic", "penalty", "features", "reprojection", "diversity", "codes", "camera", "consistency", "spread",
        "moved", "proportion",
    }  # fmt: skip
    weighted_sum(terms, weights).backward()
    for name, network in task.networks.items():
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters()), name


def test_terms_that_weigh_nothing_are_left_out(prior):
    nothing = [f"weights.{name}=0" for name in ("diversity", "codes", "spread", "moved", "proportion")]
    task = make_task(prior, *nothing, "weights.consistency=0")
    terms, weights = task.loss(task.batch(0), 0)
    assert terms.keys() == weights.keys() == {"critic", "penalty", "features", "reprojection", "camera"}
    plain = make_task(prior, *nothing, "weights.camera=0", "weights.features=0")
    terms, weights = plain.loss(plain.batch(0), 0)
    assert terms.keys() == weights.keys() == {"critic", "penalty", "reprojection", "consistency"}
    with pytest.raises(ConfigError, match="unknown beauty"):
        load_hypotheses_config("tiny", None, ["weights.beauty=1"])


def test_random_codes_that_agree_are_as_far_as_the_zero_code(prior):
    task = make_task(prior)
    batch, made = task.batch(0), torch.randn(16, 17, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        task.lifter.generator[0].weight[:, -task.lifter.code_size :] = 0  # codes mean nothing
        far, apart = task.consistency(made, batch)
        assert apart == pytest.approx(0, abs=1e-3)
        batch["codes again"] *= 5
        again, _ = task.consistency(made, batch)
    assert again == pytest.approx(float(far))


def test_the_gradient_is_turned_round_and_held_back():
    x = torch.ones(2, 1, 3, requires_grad=True)
    (torch.tensor([[[0.3, 0, 0]], [[0, 30.0, 0]]]) * TurnRound.apply(x, 0.5, 4.0)).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[[-0.15, 0, 0]], [[0, -1.0, 0]]]))


def test_made_poses_lie_as_the_template(prior):
    task = make_task(prior)
    rest = torch.from_numpy(rest_pose(HUMAN)).float()
    turns = torch.from_numpy(Rotation.random(5, random_state=0).as_matrix()).float()
    found = task.to_template(2.5 * rest @ turns.transpose(1, 2) + 1)
    scale = task.examples.size / sum(bone.length for bone in HUMAN.bones)
    torch.testing.assert_close(found, (scale * rest).expand(5, -1, -1), atol=1e-3, rtol=0)
    flat = torch.zeros(2, 17, 3)
    assert torch.isfinite(rotation_to(flat[:, template_joints(HUMAN)], task.template)).all()


def test_hidden_joints_leave_enough_to_be_seen():
    rng = np.random.default_rng(0)
    hidden = hide_joints(np.ones((500, 17)), 0.5, 3, rng)
    counts = 17 - hidden.sum(1)
    assert counts.max() == 3 and 0.4 < (counts > 0).mean() < 0.6
    few = np.zeros((50, 17))
    few[:, :FEWEST_SEEN] = 1
    assert hide_joints(few, 1.0, 3, rng).sum(1).min() == FEWEST_SEEN
    assert hide_joints(np.ones((9, 17)), 1.0, 0, rng).all()


def test_turns_are_rotations_as_far_as_the_subject_turns():
    turns = random_turns(200, load_skeleton("mouse"), np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert turns[:, 2, 2].min() > 0.9  # a mouse in an open field hardly rolls


def test_a_short_training_beats_the_mean_pose(prior):
    task = make_task(prior, "steps=120", "batch_size=32", "hidden=0")
    views = photograph(task.examples.test, HUMAN, 100, 0)
    before = measure_lifter(eager_lifting(task.lifter, HUMAN), views, thorough=False).metrics["pa_mpjpe_mm"]
    optimiser = torch.optim.Adam(task.networks.parameters(), 1e-3, betas=(0.5, 0.999))
    for n in range(120):
        step(task, optimiser, n)
    measured = measure_lifter(eager_lifting(task.lifter, HUMAN), views).metrics
    assert measured["pa_mpjpe_mm"] < 0.75 * before
    assert measured["best10_pa_mpjpe_mm"] < 1.1 * measured["one_pa_mpjpe_mm"]
    part = calibrate(eager_lifting(task.lifter, HUMAN), views)
    lifting = eager_lifting(task.lifter, HUMAN, part)
    lifted = lifting.lift(views.joints)
    assert coverage(lifted.pose, lifted.covariance, views.truth, HUMAN.root) == pytest.approx(0.9, abs=0.02)
    image = task.picture(task.batch(0), 0)
    assert image.dtype == np.uint8 and image.ndim == 3


def test_any_tree_is_trained():
    mouse, rng = load_skeleton("mouse"), np.random.default_rng(0)
    poses = (rest_pose(mouse) + rng.normal(0, 0.02, (100, 10, 3))) @ random_turns(100, mouse, rng).swapaxes(1, 2)
    prior = Prior("mice", poses, mouse.joints, np.repeat(["a", "b", "c", "d"], 25))
    config = load_hypotheses_config("tiny", None, ["batch_size=8"])
    nothing = np.zeros((0, 10, 2)), np.zeros((0, 10))
    task = HypothesesTask(make_examples(prior, prior, mouse, config, *nothing), mouse, config)
    found = step(task, torch.optim.Adam(task.networks.parameters()), 0)
    assert all(np.isfinite(value) for value in found.values())


def test_detections_are_mixed_in(prior):
    config = load_hypotheses_config("tiny", None, ["detections=0.5"])
    detected, believed = np.full((3, 17, 2), 7.0), np.ones((3, 17))
    believed[:, 4] = 0
    examples = make_examples(*prior.split(0.2), HUMAN, config, detected, believed)
    joints, seen = examples.draw_joints(400, np.random.default_rng(0))
    found = (joints == 7).all((1, 2))
    assert 0.4 < found.mean() < 0.6 and not seen[found, 4].any() and seen[~found].all()


def test_priors_that_do_not_fit_are_told(tmp_path, prior):
    config = load_hypotheses_config("tiny", None, ["prior=mine"])
    store = tmp_path / "store.zarr"
    write_prior(store, Prior("mine", prior.poses[:, :, :2], HUMAN.joints, prior.groups))
    with pytest.raises(ConfigError, match="holds 2D poses"):
        find_prior(StoreReader(store), HUMAN, config)
    write_prior(store, Prior("mine", prior.poses[:, :16], HUMAN.joints[:16], prior.groups))
    with pytest.raises(ConfigError, match="has no joint right_wrist"):
        find_prior(StoreReader(store), HUMAN, config)
    write_prior(store, prior.pick(slice(0, 20)).__class__("mine", prior.poses[:20], HUMAN.joints, prior.groups[:20]))
    with pytest.raises(TrainingError, match="20 poses of all joints"):
        make_hypotheses_task(StoreReader(store), HUMAN, config, "cpu")
    with pytest.raises(StoreError, match="no prior other"):
        find_prior(StoreReader(store), HUMAN, load_hypotheses_config("tiny", None, ["prior=other"]))


def test_joints_are_detected_in_clips(walker_bundle):
    film = np.stack([cv2.resize(draw_walker(n / 25, (320, 240)), (128, 128)) for n in range(70)])
    reader = SimpleNamespace(
        clips=lambda: [SimpleNamespace(id="a", num_frames=len(film))],
        read_many=lambda items, masks: SimpleNamespace(frames=film[[n for _, n in items]]),
    )
    joints, believed = detect_joints(reader, HUMAN, str(walker_bundle))
    assert joints.shape == (len(believed), 17, 2) and len(joints) > 50 and (believed.sum(1) >= FEWEST_SEEN).all()
    with pytest.raises(ConfigError, match="not of mouse"):
        detect_joints(reader, load_skeleton("mouse"), str(walker_bundle))


def test_half_precision_changes_nothing(prior):
    task = make_task(prior)
    batch = task.batch(0)
    torch.manual_seed(0)
    expected, _ = task.loss(batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = task.loss(batch, 0)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_noise_is_a_share_of_the_subject(prior):
    joints = np.zeros((4000, 2, 2))
    joints[:, 1, 0] = 50
    apart = add_noise(joints, 0.02, np.random.default_rng(0)) - joints
    assert apart.std() == pytest.approx(1.0, rel=0.05)
    assert add_noise(joints, 0.0, np.random.default_rng(0)) is joints
    exact, noisy = (photograph(prior, HUMAN, 50, 0, noise=noise) for noise in (0.0, 0.05))
    np.testing.assert_array_equal(exact.truth, noisy.truth)
    assert not np.array_equal(exact.joints, noisy.joints)
