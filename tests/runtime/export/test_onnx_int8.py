"""8-bit ONNX files: what stays in float, what is refused, and who applies them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.plain.square import eval_square
from convoy.runtime.export import onnx_int8
from convoy.runtime.export.formats import FORMATS, export_formats
from convoy.runtime.export.sample_images import Sample
from convoy.runtime.predict.choice import choose
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from main import main
from tests.runtime.predict.without_tensorflow import without_tensorflow

onnx = pytest.importorskip("onnx", reason="the extra export: make test-export")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export: make test-export")

SIZE, WIDE = 16, 32


TINTS = np.array([[90, 0, 0], [0, 90, 0], [0, 0, 90], [60, 60, 60]])
CLASSES = np.arange(100) % 4
IMAGES = list(
    (np.random.default_rng(0).integers(0, 160, (100, SIZE, SIZE, 3))
     + TINTS[CLASSES][:, None, None]).astype(np.uint8)
)  # fmt: skip


def network(path, apart=None):
    """Writes a network of three convolutions, two thirds of the work in the last, and a classifier
    of the images' four tints.

    Args:
        path: the file.
        apart: the number of a convolution of whose channels one is 30,000 times as large as the
            others. The next layer makes up for it, so the logits do not change.
    """
    _write(path, apart, np.zeros((WIDE, 4)), np.zeros(4))
    features = run(path, IMAGES, "features")
    mean, wanted = features.mean(0), 8 * np.eye(4)[CLASSES]
    near = features - mean
    ridge = 1e-3 * np.trace(near.T @ near) * np.eye(WIDE)
    dense = np.linalg.solve(near.T @ near + ridge, near.T @ (wanted - 2))
    _write(path, apart, dense, 2 - mean @ dense)
    return path


def _write(path, apart, dense, bias):
    helper, draw = onnx.helper, np.random.default_rng(0)
    shapes = [(8, 3, 3, 3), (8, 8, 3, 3), (WIDE, 8, 3, 3)]
    weights = [np.float32(draw.normal(size=s) / np.sqrt(np.prod(s[1:]))) for s in shapes]
    weights.append(np.float32(dense))
    if apart is not None:
        weights[apart][0] *= 3e4
        weights[apart + 1][:, 0] /= 3e4
    constants = [onnx.numpy_helper.from_array(w, f"net/layer{i}/w") for i, w in enumerate(weights)]
    constants.append(onnx.numpy_helper.from_array(np.float32(128), "middle"))
    constants.append(onnx.numpy_helper.from_array(np.float32(bias), "net/layer3/b"))
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "middle"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["y0"], perm=(0, 3, 1, 2)),
    ]
    for i in range(3):
        taken = [f"y{i}", f"net/layer{i}/w"]
        nodes.append(helper.make_node("Conv", taken, [f"x{i}"], f"net/layer{i}/conv"))
        nodes.append(helper.make_node("Relu", [f"x{i}"], [f"y{i + 1}"]))
    nodes += [
        helper.make_node("GlobalAveragePool", ["y3"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "net/layer3/w"], ["dense"], "net/layer3/dense"),
        helper.make_node("Add", ["dense", "net/layer3/b"], ["logits"], "net/layer3/bias"),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    value, kinds = helper.make_tensor_value_info, onnx.TensorProto
    taken = [value("images", kinds.UINT8, ["batch", SIZE, SIZE, 3])]
    given = [value(name, kinds.FLOAT, ["batch", 4]) for name in ("logits", "probabilities")]
    given.append(value("features", kinds.FLOAT, ["batch", WIDE]))
    graph = helper.make_graph(nodes, "small", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.helper.set_model_props(model, {"labels.txt": "a\n"})
    onnx.save(model, str(path))


def run(file, images, result="logits"):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options)
    return session.run([result], {"images": np.stack(images)})[0]


def sample(file):
    """Returns a sample with the logits of a file."""
    return Sample([b""] * 100, IMAGES, [None] * 100, IMAGES[:40], logits=run(file, IMAGES))


def test_a_network_that_bears_it_gets_8_bits_in_all_layers(tmp_path):
    source = network(tmp_path / "float.onnx")
    some = sample(source)
    facts = onnx_int8.quantise(source, tmp_path / "int8.onnx", some)
    assert (facts["float_layers"], facts["float_share"], facts["layers"]) == ([], 0, [])
    assert facts["calibration_images"] == 40
    model = onnx.load(tmp_path / "int8.onnx")
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    (first,) = [w for name, w in weights.items() if name == "net/layer0/w_quantized"]
    assert first.dtype == np.int8
    assert weights["net/layer0/w_scale"].shape == (8,), "one per channel"
    assert {p.key: p.value for p in model.metadata_props} == {"labels.txt": "a\n"}
    got = run(tmp_path / "int8.onnx", some.images)
    assert np.mean(got.argmax(-1) == some.logits.argmax(-1)) >= 0.98
    assert len(np.unique(got.argmax(-1))) >= 4
    assert len(np.unique(got)) > 300, "the logits themselves are not rounded to 256 numbers"


@pytest.mark.parametrize(("vnni", "most"), [(True, 127), (False, 64), (None, 64)])
def test_weights_have_7_bits_unless_the_processor_has_vnni(tmp_path, monkeypatch, vnni, most):
    monkeypatch.setattr(onnx_int8, "multiplies_int8", lambda: vnni)
    source = network(tmp_path / "float.onnx")
    facts = onnx_int8.quantise(source, tmp_path / "int8.onnx", sample(source))
    assert facts["weight_bits"] == (8 if vnni else 7)
    weights = [i for i in onnx.load(tmp_path / "int8.onnx").graph.initializer
               if i.name.endswith("w_quantized")]  # fmt: skip
    assert max(np.abs(onnx.numpy_helper.to_array(w)).max() for w in weights) == most


def test_a_layer_whose_channels_are_far_apart_is_found_and_stays_in_float(tmp_path, capsys):
    """The numbers between layers 0 and 1 have one range for all channels."""
    source = network(tmp_path / "float.onnx", apart=0)
    some = sample(source)
    facts = onnx_int8.quantise(source, tmp_path / "int8.onnx", some)
    told = capsys.readouterr().out
    assert "looking for the layers" in told
    assert max(map(len, told.splitlines())) <= 80
    assert max(facts["calibrations"].values()) < 0.98
    assert set(facts["float_layers"]) == {"layer0", "layer1"}
    errors = {row["layer"]: row["error"] for row in facts["layers"]}
    assert min(errors["layer0"], errors["layer1"]) > 5 * errors["layer2"]
    assert 0 < facts["float_share"] < onnx_int8.MOST_IN_FLOAT
    got = run(tmp_path / "int8.onnx", some.images)
    assert np.mean(got.argmax(-1) == some.logits.argmax(-1)) >= 0.98


def test_no_more_than_half_of_the_work_stays_in_float_and_a_table_says_why(tmp_path):
    source = network(tmp_path / "float.onnx", apart=1)
    facts = onnx_int8.quantise(source, tmp_path / "int8.onnx", sample(source))
    assert facts["float_share"] <= onnx_int8.MOST_IN_FLOAT
    assert len(facts["layers"]) == 4
    assert sum(row["share"] for row in facts["layers"]) == pytest.approx(1)
    text = onnx_int8.describe(facts, passed=False)
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.splitlines()[3:5]] == [
        row["layer"] for row in facts["layers"][:2]
    ]
    assert "layer1" not in onnx_int8.describe(facts, passed=True)


def test_the_choice_of_the_calibration_is_the_same_each_time(tmp_path):
    source = network(tmp_path / "float.onnx")
    some = sample(source)
    one, other = (onnx_int8.quantise(source, tmp_path / f"{i}.onnx", some) for i in (1, 2))
    assert one == other
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()
    assert set(one["calibrations"]) == {"min-max", "entropy", "percentile"}
    assert one["calibrations"][one["calibration"]] == max(one["calibrations"].values())


def test_a_model_that_loses_a_point_of_accuracy_is_refused_though_it_agrees():
    rules = FORMATS["onnx-int8"]
    assert rules.objection(0.98, 0.91 - 0.9) is None
    assert rules.objection(0.98, None) is None
    assert "top-1 is 1.10 points lower, and 1 is allowed" in rules.objection(0.99, 0.011)
    assert "98.0% is needed" in rules.objection(0.979, 0.0)
    assert FORMATS["tflite-int8"].objection(0.95, 0.05) is None


def test_without_images_to_judge_by_it_is_refused(trained, photos, tmp_path, capsys):
    flags = ["--mode", "export", "--model_dir", trained.model_dir, "--output", tmp_path / "out"]
    flags += ["--export_format", "onnx-int8", *trained.flags[-2:]]
    with pytest.raises(SystemExit):
        main([str(flag) for flag in (*flags, "--export_samples", "0")])
    assert "leave out --export_samples 0" in " ".join(capsys.readouterr().err.split())
    assert main([str(flag) for flag in (*flags, "--predict_dir", photos)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "at least 50 of them to judge, and there are 12 in" in said
    assert "--predict_dir" in said


def test_without_its_packages_it_is_refused(monkeypatch):
    monkeypatch.setattr("convoy.runtime.export.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnx-int8 needs onnx, onnxruntime.*\[export\]"):
        export_formats("onnx-int8")


def test_logits_that_are_not_finite_are_told_before_anything_is_written():
    from convoy.runtime.export.export import ExportError, _check_finite

    logits = np.zeros((3, 2))
    _check_finite(logits, "x")
    logits[1, 0] = np.nan
    with pytest.raises(ExportError, match="for 1 of 3 images, so its training has diverged"):
        _check_finite(logits, "x")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """A copy of a run with an 8-bit file; that of its two epochs may differ in close classes."""
    pytest.importorskip("tf2onnx", reason="the extra export: make test-export")
    run_folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(trained.model_dir, run_folder)
    flags = ["--mode", "export", "--model_dir", run_folder, "--export_format", "onnx-int8"]
    lenient = replace(FORMATS["onnx-int8"], agreement=0.5, lost=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "onnx-int8", lenient)
        assert main([str(flag) for flag in (*flags, *trained.flags[-2:])]) == 0
    return run_folder


def test_predict_gives_the_labels_of_its_runtime_and_needs_no_tensorflow(
    exported, photos, tmp_path
):
    file = exported / "export" / "model-int8.onnx"
    flags = ["--mode", "predict", "--pretrained_from_file", file, "--predict_dir", photos]
    done = without_tensorflow(*flags, "--output", tmp_path / "labels")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    pictures = [(photos / row["path"]).read_bytes() for row in rows]
    crop = EvalCrop(exif_orientation="apply")
    logits = run(file, [eval_square(encoded, 32, crop) for encoded in pictures])
    assert [row["predictions"][0]["class"] for row in rows] == [str(i) for i in logits.argmax(-1)]
    assert len(rows) == 12


def test_eval_applies_the_file_and_auto_takes_only_the_float_one(exported, trained, tmp_path):
    file = exported / "export" / "model-int8.onnx"
    flags = ["--mode", "eval", "--pretrained_from_file", file, *trained.flags[-2:]]
    assert main([str(flag) for flag in (*flags, "--model_dir", tmp_path)]) == 0
    last = (tmp_path / "log.json").read_text().splitlines()[-1]
    figures = json.loads(last.removeprefix("DLLL "))["data"]
    said = json.loads((exported / "export" / "export.json").read_text())
    assert figures["eval_examples"] == 53
    assert figures["eval_accuracy_top_1"] == said["formats"]["onnx-int8"]["top1_accuracy"]
    choice = choose(Config(mode="predict", model_dir=str(exported), predict_dir="x"))
    assert choice.file is None
    assert "there is no" in choice.why_not


def test_the_file_and_its_facts_are_in_the_export(exported):
    said = json.loads((exported / "export" / "export.json").read_text())["formats"]["onnx-int8"]
    assert said["file"] == "model-int8.onnx"
    assert said["quantisation"]["calibration"] in ("min-max", "entropy", "percentile")
    card = (exported / "export" / "model_card.md").read_text()
    assert "An 8-bit file gives other classes than the others for some images" in card
    session = onnxruntime.InferenceSession(str(exported / "export" / "model-int8.onnx"))
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert {o.name: o.type for o in session.get_outputs()}["logits"] == "tensor(float)"
