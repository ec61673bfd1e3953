"""The benchmark modes: their rows and batch sizes, figures from times, tables, and real runs."""

import json

import numpy as np
import pytest

from convoy.runtime.benchmark.benchmark_report import DEFINITIONS, UNITS, Report, figures
from convoy.runtime.benchmark.plan import PRECISIONS, Row, batch_sizes, check_benchmark, rows
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from main import main

MODE = "inference_benchmark"


def config(mode=MODE, **flags):
    return Config(mode=mode, data_backend="synthetic", **flags)


def test_figures_equal_numpys_percentiles_and_means_of_the_times():
    rng = np.random.default_rng(1)
    data, compute = rng.exponential(0.002, (2, 41)), rng.exponential(0.01, (2, 41))
    found = figures(data, compute, images=16)
    for q in (50, 90, 95, 99):
        want = np.percentile(compute * 1e3, q, method="linear")
        assert found[f"latency_{q}"] == pytest.approx(want, rel=1e-12)
    assert found["latency_avg"] == pytest.approx(compute.mean() * 1e3)
    assert found["data_wait_avg"] == pytest.approx(data.mean() * 1e3)
    slowest = max((data[0] + compute[0]).sum(), (data[1] + compute[1]).sum())
    assert found["throughput"] == pytest.approx(16 * 41 / slowest)
    assert found["iterations"] == 41
    # NVIDIA reports the mean of the fastest 99 %, which would hide one slow iteration in 100.
    spiked = figures(np.zeros((1, 100)), np.r_[np.full(99, 0.01), 1.0][None], images=1)
    assert (spiked["latency_50"], spiked["latency_95"]) == (pytest.approx(10), pytest.approx(10))
    assert spiked["latency_99"] == pytest.approx(10 + 0.01 * 990)


def test_batch_sizes_are_a_list_or_a_sweep_or_one_flags_value():
    assert batch_sizes(config(eval_batch_size=7)) == [7]
    assert batch_sizes(config("training_benchmark", train_batch_size=9)) == [9]
    assert batch_sizes(config(benchmark_batch_sizes="8, 1,2,8")) == [1, 2, 8]
    sweep = {arch: batch_sizes(config(arch=arch, benchmark_batch_sizes="sweep")) for arch in (
        "resnet50", "efficientnet-b0", "efficientnet-b4", "resnet18")}  # fmt: skip
    assert sweep["resnet50"] == [1, 2, 4, 8, 16, 32, 64, 128, 256] == sweep["resnet18"]
    assert (sweep["efficientnet-b0"][-1], len(sweep["efficientnet-b0"])) == (1024, 11)
    assert sweep["efficientnet-b4"][-1] == 128
    for text in ("", "0", "1,x", "-1", "1.5"):
        with pytest.raises(ConfigError, match="numbers from 1"):
            batch_sizes(config(benchmark_batch_sizes=text))


def test_rows_combine_precisions_and_xla_and_have_each_export_once():
    flags = {"benchmark_precisions": "amp,fp32", "benchmark_xla": "on,off"}
    found = rows(config(benchmark_formats="tflite-int8,keras,onnx", **flags), "fp32")
    assert found == [
        Row("keras", "fp32", False), Row("keras", "fp32", True),
        Row("keras", "amp", False), Row("keras", "amp", True),
        Row("tflite-int8", "int8", False), Row("onnx", "fp32", False),
    ]  # fmt: skip
    assert rows(config(use_xla=True, use_amp=True), "amp") == [Row("keras", "amp", True)]
    for precision in PRECISIONS:
        made = config().with_(**Row("keras", precision, False).settings())
        assert made.tf32 is (precision != "fp32")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"benchmark_precisions": "fp32,fp8"}, "choose from fp32, tf32, amp, bf16, fp16"),
        ({"benchmark_xla": "maybe"}, "choose from off, on"),
        ({"benchmark_formats": "coreml"}, "choose from keras, savedmodel, tflite"),
        ({"benchmark_precisions": "tf32"}, "needs an NVIDIA GPU"),
        ({"mode": "training_benchmark", "benchmark_formats": "tflite"}, "exports cannot train"),
        ({"mode": "eval", "benchmark_xla": "on"}, "is for --mode training_benchmark and"),
        ({"mode": "training_benchmark", "benchmark_xla": "on", "batch_norm": "syncbn", "nproc": 2},
         "with --use_xla and without"),
        ({"benchmark_xla": "off", "data_format": "channels_first"}, "needs a GPU"),
        ({"benchmark_formats": "onnx"}, r"onnx needs onnx, onnxruntime.*\[export\]"),
    ],
)  # fmt: skip
def test_lists_for_the_benchmark_that_make_no_sense_are_refused(flags, message, monkeypatch):
    monkeypatch.setattr("convoy.runtime.benchmark.plan.visible_gpus", lambda: 0)
    monkeypatch.setattr("convoy.runtime.export.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        check_benchmark(Config(**({"mode": MODE} | flags)))


def test_benchmark_xla_allows_settings_that_one_process_can_run(monkeypatch):
    """Such settings are synchronised batch norm, and channels_first on a CPU under XLA."""
    from convoy.runtime.settings.input_backend import check_data_format

    monkeypatch.setattr("convoy.runtime.benchmark.plan.visible_gpus", lambda: 0)
    monkeypatch.setattr("convoy.utils.machine.device.has_gpu", lambda: False)
    check_benchmark(config(benchmark_xla="on,off", batch_norm="syncbn"))
    first = {"data_format": "channels_first", "benchmark_xla": "on"}
    check_benchmark(config(**first))
    check_data_format(config(**first))
    for flags in ({"benchmark_xla": "on,off", "use_xla": True}, {"benchmark_xla": None}):
        with pytest.raises(ConfigError, match="needs a GPU"):
            check_data_format(config(**(first | flags)))


def test_the_benchmark_uses_random_weights_only_without_a_run(tmp_path, monkeypatch):
    from convoy.runtime.benchmark.inference import RANDOM, _model
    from convoy.runtime.run_folder.checkpoint import CheckpointError

    monkeypatch.setattr(
        "convoy.runtime.benchmark.inference.build_training_model", lambda *args: None
    )
    here = config(arch="efficientnet-test", model_dir=str(tmp_path), num_classes=2)
    assert _model(here).text == RANDOM
    for flags in ({"checkpoint": "last"}, {"checkpoint": str(tmp_path)}, {"weights": "ema"}):
        with pytest.raises(CheckpointError):
            _model(here.with_(**flags))
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        _model(here)


def test_the_benchmark_refuses_a_checkpoint_of_another_architecture(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import convoy.runtime.benchmark.inference as inference

    loaded = SimpleNamespace(state={"model": {"arch": "resnet18"}})
    monkeypatch.setattr(inference, "trained_model", lambda config: loaded)
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    here = config(arch="resnet18", model_dir=str(tmp_path))
    assert inference._model(here) is loaded
    with pytest.raises(ConfigError, match="is of resnet18; leave --arch out"):
        inference._model(here.with_(arch="resnet50"))


def cell(batch, precision="fp32", note=None, **more):
    names = {"format": "keras", "precision": precision, "xla": False, "batch_size": batch}
    names |= {"resolution": 32, "load_before": 0.5, "note": note}
    if note:
        return names
    times = np.full((1, 10), 0.001 * batch)
    return (
        names
        | figures(times * 0, times, batch)
        | {"peak_memory": 2**20, "warmup_iterations": 1}
        | more
    )


def report(mode="training_benchmark", processes=1, cells=()):
    about = {
        "mode": mode, "arch": "resnet50", "resolution": 32, "data": "synthetic",
        "processes": processes, "date": "today", "commit": None,
        "settings": {"threads": 2},
        "machine": {"gpus": [], "cpu": "A | B", "cpu cores": 2, "memory": 2**30, "platform": "x"},
        "versions": {"tensorflow": "2.18"},
    }  # fmt: skip
    return Report(about, list(cells))


def tables(text):
    """Returns the cells of each Markdown table, as a CommonMark parser finds them."""
    from markdown_it import MarkdownIt

    found, inline = [], False
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            inline = True
        elif token.type == "inline" and inline:
            found[-1][-1].append(token.content)
            inline = False
    return found


def test_tables_have_the_layout_of_nvidias_documents(tmp_path):
    one = [cell(1), cell(2), cell(1, "amp"), cell(2, "amp", note="out of memory")]
    made = report(cells=one)
    made.write(str(tmp_path / "training_benchmark_1x"))
    text = (tmp_path / "training_benchmark_1x.md").read_text()
    training, *latency = tables(text)
    assert training == [
        ["Processes", "Batch size", "Throughput - fp32", "Throughput - amp",
         "Throughput speedup (fp32 to amp)"],
        ["1", "1", "1000.0", "1000.0", "1.00"],
        ["1", "2", "1000.0", "out of memory", ""],
    ]  # fmt: skip
    assert len(latency) == 2
    assert latency[0][0] == [
        "Batch size", "Resolution", "Throughput Avg", "Latency Avg (ms)", "Latency 50% (ms)",
        "Latency 90% (ms)", "Latency 95% (ms)", "Latency 99% (ms)", "Peak memory (MiB)",
    ]  # fmt: skip
    assert latency[0][2] == ["2", "32x32", "1000.0", *["2.00"] * 5, "1"]
    assert latency[1][2][:3] == ["2", "32x32", "out of memory"]
    assert "A / B, 2 cores, 1 GiB" in text
    assert "tensorflow 2.18" in text
    assert "10 iterations timed after 1 of warm-up" in text

    two = report(processes=2, cells=[cell(1), cell(2)])
    for c in two.cells:
        c["throughput"] *= 1.5
    two.write(str(tmp_path / "training_benchmark_2x"))
    scaled = tables((tmp_path / "training_benchmark_2x.md").read_text())[0]
    assert scaled[0][-1] == "Weak scaling - fp32"
    assert [line[-1] for line in scaled[1:]] == ["1.50", "1.50"]
    # For weak scaling, settings of the launch may differ, but not those of the computation.
    two.about["settings"] |= {"threads": 1, "nproc": 2, "prof": 50}
    two.about["machine"] |= {"gpus": [], "memory": 2**31, "cpu cores": 1}
    two.write(str(tmp_path / "training_benchmark_2x"))
    assert "Weak" in (tmp_path / "training_benchmark_2x.md").read_text()
    for name, other in (
        ("versions", {"tensorflow": "2.19"}),
        ("settings", two.about["settings"] | {"augmenter_name": "autoaugment"}),
        ("machine", two.about["machine"] | {"cpu": "C"}),
    ):
        changed = Report(two.about | {name: other}, two.cells)
        changed.write(str(tmp_path / "training_benchmark_2x"))
        assert "Weak" not in (tmp_path / "training_benchmark_2x.md").read_text(), name
    two.cells[0]["passes_per_update"] = 2
    two.write(str(tmp_path / "training_benchmark_2x"))
    scaled = tables((tmp_path / "training_benchmark_2x.md").read_text())[0]
    assert [line[-1] for line in scaled[1:]] == ["", "1.50"]
    said = json.loads((tmp_path / "training_benchmark_1x.json").read_text())
    assert said["cells"][3]["note"] == "out of memory"
    assert said["units"] == UNITS
    assert set(said["definitions"]) == set(DEFINITIONS)


def test_tables_have_an_energy_column_only_if_energy_was_measured():
    cells = [cell(1, energy=5.0, energy_per_image=0.5), cell(2)]
    table = tables(report(MODE, cells=cells).markdown())[0]
    assert table[0][-1] == "Energy (J/image)"
    assert (table[1][-1], table[2][-1]) == ("0.500", "")


def test_on_a_gpu_host_tables_name_the_device_of_each_row():
    made = report(MODE, cells=[cell(1, device="GPU"), cell(1, "int8", device="CPU")])
    assert "keras, int8\n" in made.markdown()
    made.about["machine"]["gpus"] = ["H100"]
    assert "keras, fp32, on the GPU\n" in made.markdown()
    assert "keras, int8, on the CPU\n" in made.markdown()
    assert [Row(name, "fp32", False).on_host for name in ("keras", "savedmodel", "onnx")] == [
        False, False, True,
    ]  # fmt: skip


def test_a_batch_that_would_exceed_the_memory_is_skipped():
    from convoy.runtime.benchmark.benchmark import _no_room

    assert _no_room([(1, 2**40)], 2) is None  # one measurement is not enough to extrapolate
    assert _no_room([(1, 1), (2, 2)], 256) is None
    assert "about 4096.0 GiB" in _no_room([(1, 2**40), (2, 2**41)], 4)


# More bytes than a process can address: allocation fails whatever the system's settings.
TOO_MANY = 10**12
QUICK = ("--arch", "efficientnet-test", "--image_size", "32", "--num_classes", "10")
FEW = ("--data_backend", "synthetic", "--prof", "4", "--benchmark_warmup", "2")


@pytest.mark.slow
def test_a_sweep_ends_when_out_of_memory_and_keeps_its_measurements(tmp_path, capsys, log_lines):
    sizes = ("--benchmark_batch_sizes", f"3,{TOO_MANY},{2 * TOO_MANY}")
    args = ("--mode", MODE, *QUICK, *FEW, *sizes, "--model_dir", str(tmp_path))
    assert main([*args]) == 0
    said = json.loads((tmp_path / f"{MODE}_1x.json").read_text())
    assert [(c["batch_size"], c["note"]) for c in said["cells"]] == [
        (3, None), (TOO_MANY, "out of memory"),
    ]  # fmt: skip
    first = said["cells"][0]
    assert (first["iterations"], first["images_per_iteration"]) == (4, 3)
    assert 0 < first["latency_50"] <= first["latency_90"] <= first["latency_99"]
    assert first["throughput"] > 0
    assert first["peak_memory"] > 2**20
    assert first["model"] == "random weights"
    told = capsys.readouterr().out
    assert "keras: random weights\n" in told
    assert "wrote" in told
    assert "Model: random weights." in (tmp_path / f"{MODE}_1x.md").read_text()
    assert said["machine"]["cpu cores"] >= 1
    assert said["versions"]["keras"]
    assert f"| {TOO_MANY} | 32x32 | out of memory |" in (tmp_path / f"{MODE}_1x.md").read_text()
    steps = [line["step"] for line in log_lines(tmp_path / "log.json") if line["type"] == "LOG"]
    assert steps == ["PARAMETER", [1], [2], []]


@pytest.mark.slow
@pytest.mark.timeout(900)  # three launches
def test_two_ranks_are_measured_together_and_compared_with_one(convoy, tmp_path):
    flags = ("--mode", "training_benchmark", *QUICK, *FEW, "--augmenter_name", "none")
    flags += ("--model_dir", tmp_path, "--intraop_threads", "1", "--benchmark_precisions", "fp32")
    flags += ("--benchmark_batch_sizes", f"2,{TOO_MANY}", "--benchmark_xla", "off")
    for processes in (1, 2):
        done = convoy(*flags, np=processes)
        assert "out of memory" in done.text
    said = json.loads((tmp_path / "training_benchmark_2x.json").read_text())
    first = said["cells"][0]
    assert (first["images_per_iteration"], first["processes"]) == (4, 2)
    alone = json.loads((tmp_path / "training_benchmark_1x.json").read_text())["cells"][0]
    scaled = tables((tmp_path / "training_benchmark_2x.md").read_text())[0]
    assert scaled[0][-1] == "Weak scaling - fp32"
    assert scaled[1][-1] == f"{first['throughput'] / alone['throughput']:.2f}"
    done = convoy(*flags, "--mode", MODE, np=2, code=1)
    assert "runs in one process" in done.text


@pytest.mark.slow
@pytest.mark.timeout(900)  # eight models, four of them converted
def test_every_format_and_precision_is_measured_on_real_images(trained, tmp_path):
    """The run has no exports, so the benchmark makes them."""
    pytest.importorskip("tf2onnx", reason="the extra export: make test-export")
    data = trained.flags[-2:]
    flags = ("--mode", MODE, "--model_dir", str(trained.model_dir), *data, "--prof", "3")
    flags += ("--benchmark_batch_sizes", "1,60", "--benchmark_precisions", "fp32,bf16")
    flags += ("--benchmark_formats", "keras,savedmodel,tflite,tflite-int8,onnx")
    flags += ("--benchmark_xla", "off,on", "--output", str(tmp_path / "all"))
    assert main([*flags]) == 0
    said = json.loads((tmp_path / "all.json").read_text())
    got = [(c["format"], c["precision"], c["xla"], c["batch_size"]) for c in said["cells"]]
    keras = [("keras", p, x, b) for p in ("fp32", "bf16") for x in (False, True) for b in (1, 60)]
    exports = [
        ("savedmodel", "fp32"),
        ("tflite", "fp32"),
        ("tflite-int8", "int8"),
        ("onnx", "fp32"),
    ]
    assert got == keras + [(name, p, False, b) for name, p in exports for b in (1, 60)]
    assert not any(c["note"] for c in said["cells"])
    assert all(c["iterations"] == 3 for c in said["cells"])
    assert all("exported for this benchmark" in c["model"] for c in said["cells"][8:])
    assert said["data"] == "real, by tfdata"
    assert str(trained.model_dir.parent) not in json.dumps(said)
    assert said["versions"]["onnxruntime"]
    assert len(tables((tmp_path / "all.md").read_text())) == 8


def test_an_existing_export_of_another_size_is_not_used(tmp_path):
    from types import SimpleNamespace

    from convoy.runtime.benchmark.inference import _fits

    model = SimpleNamespace(output_shape=(None, 2))
    trained = SimpleNamespace(model=model, state={})
    here = config(arch="efficientnet-test", image_size=32, model_dir=str(tmp_path))
    (tmp_path / "export").mkdir()
    path = tmp_path / "export" / "model.tflite"
    path.touch()
    assert not _fits(path, here, trained), "no export.json describes the file"
    for size, fits in ((32, True), (64, False)):
        said = {"arch": "efficientnet-test", "classes": ["a", "b"]}
        said["preprocessing"] = {"image_size": size}
        (tmp_path / "export" / "export.json").write_text(json.dumps(said))
        assert _fits(path, here, trained) is fits
    assert not _fits(tmp_path / "export" / "model.onnx", here.with_(image_size=64), trained)
