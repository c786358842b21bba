import json
import shutil

import numpy as np
import onnx
import pytest

from streampose.config import load_skeleton
from streampose.errors import BundleError
from streampose.runtime import bundle as bundle_module
from streampose.runtime.bundle import SCHEMA_VERSION, _sha256, default_bundle, load_bundle, write_bundle


@pytest.fixture
def copy(bundle_path, tmp_path):
    return shutil.copytree(bundle_path, tmp_path / "copy")


def edit(path, **changes):
    values = json.loads((path / "bundle.json").read_text())
    values.update(changes)
    (path / "bundle.json").write_text(json.dumps(values))


def replace_graph(path, change):
    """Change the graph and make the bundle say that this is as it should be, as an attacker would."""
    model = onnx.load(path / "model.onnx")
    change(model)
    onnx.save(model, path / "model.onnx")
    digests = {name: _sha256(path / name) for name in ("model.onnx", "weights.safetensors")}
    edit(path, sha256=digests)


def test_reads_what_was_written(bundle_path):
    bundle = load_bundle(bundle_path)
    assert bundle.skeleton == load_skeleton("human17")
    assert (bundle.input_size, bundle.padding, bundle.method, bundle.preset) == (64, 0.2, "mask", "tiny")
    assert bundle.provenance["created"] and bundle.provenance["streampose"]


def test_no_such_folder(tmp_path):
    with pytest.raises(BundleError, match=r"no such model.*selftrain"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"no such lifter.*--method hypotheses"):
        load_bundle(tmp_path / "nothing", "lifter")


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "weights.safetensors"])
def test_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name) as error:
        load_bundle(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors"])
def test_damaged_file(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: damaged"):
        load_bundle(copy)


def test_newer_schema(copy):
    edit(copy, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=r"newer streampose.*upgrade"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"schema_version": "1"}', '{"schema_version": 1}', "[" * 100_000], ids=str.__len__
)
def test_damaged_description(copy, text):
    (copy / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "changes", [{"input_size": 10**6}, {"padding": -1}, {"skeleton": {"name": "x"}}, {"sha256": {}}]
)
def test_values_that_make_no_sense(copy, changes):
    edit(copy, **changes)
    with pytest.raises(BundleError):
        load_bundle(copy)


def test_unknown_fields_are_left_to_the_future(copy):
    edit(copy, colour="blue")
    assert load_bundle(copy).input_size == 64


def test_link_out_of_the_folder(copy, tmp_path):
    (copy / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (copy / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="leaves the bundle"):
        load_bundle(copy)


def test_external_data_is_refused(copy):
    def point_outside(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../../etc/passwd")

    replace_graph(copy, point_outside)
    with pytest.raises(BundleError, match="outside of the file"):
        load_bundle(copy)


def test_unknown_operators_are_refused(copy):
    def use_custom_operator(model):
        model.graph.node[0].domain = "evil"

    replace_graph(copy, use_custom_operator)
    with pytest.raises(BundleError, match="operator"):
        load_bundle(copy)


def test_loops_are_refused(copy):
    def use_loop(model):
        model.graph.node[0].op_type = "Loop"

    replace_graph(copy, use_loop)
    with pytest.raises(BundleError, match="Loop"):
        load_bundle(copy)


def test_graph_must_fit_the_description(copy):
    edit(copy, input_size=96)
    with pytest.raises(BundleError, match="inputs and outputs"):
        load_bundle(copy)


def test_replaces_a_bundle_but_nothing_else(bundle_path, copy, tmp_path):
    old = load_bundle(bundle_path)
    parts = {
        "model": old.model_path, "weights": old.weights_path, "skeleton": old.skeleton, "input_size": 64,
        "padding": 0.3, "method": "mask", "preset": "tiny", "provenance": {},
    }  # fmt: skip
    assert write_bundle(copy, **parts).padding == 0.3
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]

    keep = tmp_path / "thesis"
    keep.mkdir()
    (keep / "chapter.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(keep, **parts)
    assert (keep / "chapter.txt").exists()


def test_bad_files_leave_the_old_bundle(copy, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    old = load_bundle(copy)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        write_bundle(
            copy, model=tmp_path / "bad.onnx", weights=old.weights_path, skeleton=old.skeleton, input_size=64,
            padding=0.2, method="mask", preset="tiny", provenance={},
        )  # fmt: skip
    assert load_bundle(copy).sha256 == old.sha256


def test_the_current_model_is_the_default_else_the_shipped_one(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_module, "__file__", str(tmp_path / "package" / "runtime" / "bundle.py"))
    with pytest.raises(BundleError, match=r"models/current: .*streampose selftrain.*--model"):
        load_bundle(default_bundle())
    (tmp_path / "package" / "default_bundle").mkdir(parents=True)
    assert default_bundle() == tmp_path / "package" / "default_bundle"
    (tmp_path / "models").mkdir()
    (tmp_path / "models/current").symlink_to(copy)  # a link to a bundle is a bundle
    assert load_bundle(default_bundle()).input_size == 64


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\nb", "\x1b[2J", "x" * 100, "a\u202eb"])
def test_names_that_could_harm_a_page_or_a_terminal(copy, name):
    skeleton = json.loads((copy / "bundle.json").read_text())["skeleton"]
    text = json.dumps(skeleton).replace('"spine"', json.dumps(name))
    edit(copy, skeleton=json.loads(text))
    with pytest.raises(BundleError) as error:
        load_bundle(copy)
    assert str(error.value).isprintable()
    edit(copy, skeleton=skeleton, method=name)
    with pytest.raises(BundleError):
        load_bundle(copy)


def test_description_too_large_or_a_link(copy, tmp_path):
    description = copy / "bundle.json"
    text = description.read_text()
    description.write_text(text + " " * (5 << 20))
    with pytest.raises(BundleError, match="larger than 4 MB"):
        load_bundle(copy)
    description.unlink()
    (tmp_path / "elsewhere.json").write_text(text)
    description.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="leaves the bundle"):
        load_bundle(copy)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, (1 << 62).to_bytes(8, "little") + b"{}", b"PK\x03\x04" * 9])
def test_weights_that_are_not_safetensors(copy, content):
    (copy / "weights.safetensors").write_bytes(content)
    edit(copy, sha256={name: _sha256(copy / name) for name in ("model.onnx", "weights.safetensors")})
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "model.int8.onnx"])
def test_files_that_the_description_invents(copy, name):
    """Only known names are opened; one that is listed has to be there."""
    values = json.loads((copy / "bundle.json").read_text())
    edit(copy, sha256={**values["sha256"], name: "0" * 64})
    if name == "model.int8.onnx":
        with pytest.raises(BundleError, match="missing from the bundle"):
            load_bundle(copy)
    else:
        assert set(load_bundle(copy).sha256) == {"model.onnx", "weights.safetensors"}


ODD_VALUES = [
    None, True, -1, 0, 1e308, 10**400, float("nan"), float("inf"), "", "x" * 100_000, [], [[]], {}, {"a": {"b": 1}},
    [1, "two", None], "../..", "\x00", "\ud800",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_odd_values_anywhere_are_refused_or_harmless(copy):
    """Every value of bundle.json replaced by every odd one: it is read or refused, never anything else."""
    original = json.loads((copy / "bundle.json").read_text())
    original["sha256"] = {}  # so that what is read whole still ends before the graph is checked
    places = list(leaves(original))
    random = np.random.default_rng(0)
    for place in [places[n] for n in random.permutation(len(places))[:60]]:
        for odd in ODD_VALUES:
            values = json.loads(json.dumps(original))
            target = values
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = odd
            (copy / "bundle.json").write_text(json.dumps(values))
            with pytest.raises(BundleError) as error:
                load_bundle(copy)
            assert "\n" not in str(error.value) and len(str(error.value)) < 5000, place


def leaves(value, place=()):
    """The paths of all values in nested dicts and lists."""
    if place:
        yield place
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*place, key))
