import pytest
import yaml

from streampose.config import (
    Strict,
    configs_folder,
    load_config,
    load_preset,
    load_skeleton,
    skeleton_from_dict,
    skeleton_to_dict,
)
from streampose.errors import ConfigError


class Inner(Strict):
    rate: float = 1e-3


class Example(Strict):
    seed: int = 0
    inner: Inner = Inner()


def test_file_and_overrides_in_that_order(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 3\ninner: {rate: 0.5}\n")
    config = load_config(Example, file, ["inner.rate=0.25"])
    assert (config.seed, config.inner.rate) == (3, 0.25)


def test_preset_then_file_then_overrides(tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "example.yaml").write_text("plain:\nquick: {seed: 5, inner: {rate: 0.5}}\n")
    monkeypatch.setattr("streampose.config.configs_folder", lambda: tmp_path)
    assert load_preset(Example, "example", "plain") == Example()
    file = tmp_path / "own.yaml"
    file.write_text("seed: 6\n")
    config = load_preset(Example, "example", "quick", file, ["inner.rate=0.25"])
    assert (config.seed, config.inner.rate) == (6, 0.25)
    with pytest.raises(ConfigError, match="preset 'slow': example has plain, quick"):
        load_preset(Example, "example", "slow")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sed: 3", "unknown key 'sed'"),
        ("seed: many", "seed: Input should be a valid integer"),
        ("- 1", "expected key: value lines"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_files_are_named(tmp_path, text, expected):
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"wrong.yaml: .*{expected}"):
        load_config(Example, file)


def test_all_problems_in_one_message(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("sed: 3\nseed: many\n")
    with pytest.raises(ConfigError, match=r"sed.*seed|seed.*sed"):
        load_config(Example, file)


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deep=3"])
def test_wrong_overrides(override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(Example, None, ["seed=1", override])


def test_missing_file():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config(Example, "nowhere.yaml")


@pytest.mark.parametrize("path", sorted((configs_folder() / "skeletons").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_skeletons(path):
    skeleton = load_skeleton(path.stem)
    assert skeleton.name == path.stem
    assert skeleton_from_dict(skeleton_to_dict(skeleton)) == skeleton
    assert sorted(skeleton.flip_index) == list(range(skeleton.num_joints))
    for left, right in skeleton.flip_pairs:
        assert skeleton.joints[left].replace("left", "right") == skeleton.joints[right]


def test_shipped_skeletons_are_there():
    assert {"human17", "coco17", "mpii16", "mouse"} <= {p.stem for p in (configs_folder() / "skeletons").glob("*.yaml")}


def test_a_bone_that_names_a_missing_joint(tmp_path):
    values = yaml.safe_load((configs_folder() / "skeletons" / "human17.yaml").read_text())
    values["bones"][0]["joints"][1] = "right_hipp"
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"mine.yaml: bones names the joint 'right_hipp', which is not in joints"):
        load_skeleton(file)


def test_unknown_skeleton_lists_the_known():
    with pytest.raises(ConfigError, match=r"skeleton horse: not shipped \(there are .*human17"):
        load_skeleton("horse")
