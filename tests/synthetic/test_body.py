import numpy as np

from streampose.config import load_skeleton
from streampose.synthetic.body import compose, procedural_body, skin_body
from streampose.synthetic.rig import BONES

IDENTITY = np.tile(np.eye(3, 4), (len(BONES), 1, 1))


def test_people_are_complete_and_differ():
    heights = []
    for seed in range(6):
        body = procedural_body(np.random.default_rng(seed))
        heights.append(np.ptp(body.vertices[:, 2]))
        assert np.allclose(body.weights.sum(1), 1, atol=1e-5)
        assert body.faces.min() >= 0 and body.faces.max() < len(body.vertices)
        assert body.face_tiles.max() < len(body.atlas)
        assert body.atlas.min() >= 0 and body.atlas.max() <= 1
        assert np.abs(np.linalg.norm(body.normals, axis=1) - 1).max() < 1e-3
    assert min(heights) > 1.45 and max(heights) < 2.05 and np.ptp(heights) > 0.1


def test_faces_look_outwards():
    body = procedural_body(np.random.default_rng(3))
    a, b, c = (body.vertices[body.faces[:, i]].astype(float) for i in range(3))
    normal = np.cross(b - a, c - a)
    large = np.linalg.norm(normal, axis=1) > 1e-7
    agrees = (normal * body.normals[body.faces].mean(1)).sum(1)[large] > 0
    assert agrees.mean() > 0.98
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert 0.03 < volume < 0.25  # cubic metres, with parts that overlap; negative if turned inside out


def test_people_have_the_joints_of_every_human_skeleton_inside_their_bodies():
    body = procedural_body(np.random.default_rng(5))
    for name in ("human17", "coco17", "mpii16"):
        for joint in load_skeleton(name).joints:
            landmark = body.rig.landmarks[joint]
            distance = np.linalg.norm(body.vertices - landmark.points.mean(0), axis=1).min()
            assert distance < 0.13, joint


def test_human_bone_lengths_are_those_of_the_skeleton_file():
    skeleton = load_skeleton("human17")
    measured = []
    for seed in range(20):
        body = procedural_body(np.random.default_rng(seed))
        points = [body.rig.landmarks[joint].points.mean(0) for joint in skeleton.joints]
        height = np.ptp(body.vertices[:, 2])
        measured.append([np.linalg.norm(points[b.parent] - points[b.child]) / height for b in skeleton.bones])
    for bone, length in zip(skeleton.bones, np.mean(measured, 0), strict=True):
        assert 0.85 * bone.length < length < bone.max_length, skeleton.joints[bone.child]


def test_skinning_keeps_the_rest_pose_and_moves_rigidly():
    body = procedural_body(np.random.default_rng(1))
    vertices, normals = skin_body(body, IDENTITY)
    assert np.allclose(vertices, body.vertices, atol=1e-5) and np.allclose(normals, body.normals, atol=1e-5)
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7]])
    moved, _ = skin_body(body, np.tile(turn, (len(BONES), 1, 1)))
    assert np.allclose(moved, body.vertices @ turn[:, :3].T + turn[:, 3], atol=1e-4)


def test_compose_applies_the_second_transform_first():
    rng = np.random.default_rng(0)
    a, b, point = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    inner = b[:, :3] @ point + b[:, 3]
    both = compose(a, b)
    assert np.allclose(both[:, :3] @ point + both[:, 3], a[:, :3] @ inner + a[:, 3])
