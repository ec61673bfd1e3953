"""The benchmark for one GPU: its arithmetic, its time limit, and results of an interrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.cards import Card, mfu, peak
from benchmarks.gpu.cells import COMPILED, CONVOY, DEVICE, EAGER, FIT, HOST, Setting, cells
from benchmarks.gpu.table import NOT_YET, NOTHING, markdown
from benchmarks.harness.row import Entry
from benchmarks.harness.turns import Failed, Missing

ROOT = Path(__file__).resolve().parents[3]
EVERY = cells(Setting(Path("photographs")))
CARD = Card("NVIDIA A100-SXM4-80GB", 81920.0, "580")


@pytest.mark.parametrize(
    ("card", "float16", "float32"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA A100 80GB PCIe", 312e12, 156e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA H100 NVL", 835.5e12, 417.5e12),
        ("NVIDIA H200", 989.4e12, 494.7e12),
        ("NVIDIA H200 NVL", 835.5e12, 417.5e12),
        ("Tesla V100-SXM2-16GB", 125e12, 15.7e12),  # no TensorFloat-32
        ("NVIDIA L4", 121e12, 60e12),
        ("NVIDIA L40S", 362e12, 183e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
        ("NVIDIA L40", None, None),
        ("NVIDIA GH200 480GB", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("no GPU", None, None),
    ],
)
def test_peak_speeds_depend_on_the_name_of_the_card(card, float16, float32):
    assert (peak(card, "float16"), peak(card, "float32")) == (float16, float32)


def test_volta_has_no_bfloat16():
    assert peak("Tesla V100-SXM2-16GB", "bfloat16") is None


def test_model_flops_utilisation_equals_a_calculation_by_hand():
    # ResNet50 on an A100, from the document: 2,470 × 6 × 4.09e9 = 60.6e12 of 312e12.
    assert mfu(2470, 4.09e9, 312e12) == pytest.approx(0.1943, abs=1e-4)
    assert mfu(2470, 4.09e9, None) is None


def test_cells_have_the_batch_sizes_of_the_documents():
    batches = {(cell.arch, cell.dtype): cell.batch for cell in EVERY}
    assert batches["efficientnet-b0", "float16"] == 1024
    assert batches["efficientnet-b0", "float32"] == 512
    assert batches["efficientnet-b4", "float16"] == 160
    assert batches["efficientnet-b4", "float32"] == 80
    assert batches["resnet50", "float16"] == 256


def test_only_contenders_with_tensorflow_get_the_folder_of_its_libraries(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/driver")
    (tmp_path / "nvidia" / "cudnn" / "lib").mkdir(parents=True)
    setting = Setting(Path("photographs"), site=tmp_path, torch_python="/opt/torch/python")
    ours, theirs = next(c for c in cells(setting) if c.name == "b0-fp16").entries
    assert ours.environment["LD_LIBRARY_PATH"] == f"{tmp_path}/nvidia/cudnn/lib:/driver"
    assert ours.environment["PYTHONPATH"].split(":")[0] == str(tmp_path)
    assert (theirs.environment, theirs.python) == ({}, "/opt/torch/python")


def test_the_page_has_no_table_before_a_measurement():
    page = (ROOT / "docs" / "gpu_benchmark.md").read_text()
    table = page.split("<!-- gpu -->\n")[1].split("<!-- end of gpu -->")[0]
    if ", commit " not in table:  # a table of measurements names its commit
        assert table == markdown({}, EVERY) == NOTHING


# ---- runs with simulated contenders --------------------------------------------------------------


class Bench:
    """A clock, a card and contenders whose time, memory and speed the test sets.

    Attributes:
        begin_s, turn_s: seconds that starting and a turn take.
        speeds: images × work per second, by label.
        used: share of the card's memory that a running contender takes, by label.
        fits, fits_beside: the largest batch by label, alone and beside other contenders.
        missing, breaks: labels of contenders that are not installed, or crash in their turns.
        alive, started, turns: labels of running contenders, and of all starts and turns so far.
    """

    def __init__(self) -> None:
        self.now, self.begin_s, self.turn_s = 0.0, 10.0, 1.0
        self.speeds, self.used = {}, {}
        self.fits, self.fits_beside = {}, {}
        self.missing, self.breaks = set(), set()
        self.alive, self.started, self.turns = [], [], []

    def run(self, path: Path, budget_s: float, names: list[str]) -> dict:
        card = type("Fake", (), {"used": lambda _: sum(self.used.get(e, 0) for e in self.alive)})()
        clock = gpu.Clock(budget_s, lambda: self.now)
        results = gpu.begin_results(path, CARD, tiny=False)
        wanted = [cell for cell in EVERY if cell.name in names]
        gpu.Run(card, clock, path, results, rounds=4, target_s=1.0).measure(wanted)
        assert not self.alive
        return json.loads(path.read_text())

    def worker(self, entry: Entry) -> Pretender:
        return Pretender(self, entry)


class Pretender:
    def __init__(self, bench: Bench, entry: Entry) -> None:
        self.bench, self.entry = bench, entry
        bench.alive.append(entry.label)
        bench.started.append(entry.label)

    def __exit__(self, *_) -> None:
        self.bench.alive.remove(self.entry.label)

    def begin(self, target_s: float, limit_s: float) -> dict:
        label, bench = self.entry.label, self.bench
        bench.now += min(bench.begin_s, limit_s)
        if limit_s < bench.begin_s:
            raise Failed(f"{label}: no answer in {limit_s:.0f} s")
        if label in bench.missing:
            raise Missing("timm")
        limits = bench.fits_beside if len(bench.alive) > 1 else bench.fits
        if self.entry.arguments["batch"] > limits.get(label, 1e9):
            raise Failed(f"{label}: ResourceExhaustedError: out of memory")
        return {"begin_s": bench.begin_s}

    def turn(self, limit_s: float) -> dict:
        bench, label = self.bench, self.entry.label
        bench.now += min(bench.turn_s, limit_s)
        if limit_s < bench.turn_s:
            raise Failed(f"{label}: no answer in {limit_s:.0f} s")
        if label in bench.breaks:
            raise Failed(f"{label}: ended with code -11")
        bench.turns.append(label)
        speed = bench.speeds.get(label, 1000.0)
        return {"speed": speed, "resident": 2000.0, "wait_ms": 1.5, "device_mib": 2048.0}


@pytest.fixture
def bench(monkeypatch):
    made = Bench()
    monkeypatch.setattr(gpu, "Worker", made.worker)
    return made


def test_contenders_take_turns_in_alternating_order(bench, tmp_path):
    found = bench.run(tmp_path / "gpu.json", 100, ["b0-fp16"])
    assert bench.turns == [CONVOY, COMPILED, COMPILED, CONVOY] * 2
    assert found["cells"]["b0-fp16"]["done"]


@pytest.mark.parametrize("used", [{CONVOY: 0.46, COMPILED: 0.1}, {CONVOY: 0.4, COMPILED: 0.51}])
def test_contenders_run_one_after_another_if_the_card_has_no_room_for_both(bench, tmp_path, used):
    bench.used = used
    bench.run(tmp_path / "gpu.json", 100, ["b0-fp16"])
    assert bench.turns == [CONVOY] * 4 + [COMPILED] * 4
    assert bench.started.count(COMPILED) == (1 if used[CONVOY] > gpu.HALF else 2)


def test_a_contender_without_memory_beside_another_gets_the_card_alone(bench, tmp_path):
    bench.fits_beside = {COMPILED: 512}
    found = bench.run(tmp_path / "gpu.json", 100, ["b0-fp16"])["cells"]["b0-fp16"]["found"]
    assert bench.turns == [CONVOY] * 4 + [COMPILED] * 4
    assert found[COMPILED]["batch"] == 1024


def test_a_contender_that_crashes_does_not_stop_the_others(bench, tmp_path):
    bench.breaks = {COMPILED}
    cell = bench.run(tmp_path / "gpu.json", 100, ["b0-fp16"])["cells"]["b0-fp16"]
    assert cell["notes"] == {COMPILED: "timm, torch.compile: ended with code -11"}
    assert len(cell["found"][CONVOY]["turns"]["speed"]) == 4


def test_a_batch_that_does_not_fit_is_halved_until_it_fits(bench, tmp_path):
    bench.fits = bench.fits_beside = {COMPILED: 300}
    found = bench.run(tmp_path / "gpu.json", 100, ["b0-fp16"])["cells"]["b0-fp16"]["found"]
    assert (found[CONVOY]["batch"], found[COMPILED]["batch"]) == (1024, 256)


def test_a_missing_package_is_named_in_the_results(bench, tmp_path):
    bench.missing = {COMPILED}
    found = bench.run(tmp_path / "gpu.json", 100, ["b0-fp16"])
    assert found["cells"]["b0-fp16"]["notes"] == {COMPILED: "not installed: timm"}
    assert "b0-fp16, timm, torch.compile: not installed: timm" in markdown(found, EVERY)


def test_an_interrupted_run_continues_with_the_unfinished_cells(bench, tmp_path):
    path, names = tmp_path / "gpu.json", ["b0-fp16", "resnet50-fp16", "b4-fp16"]
    # A cell takes 28 s: the second one is interrupted in its turns.
    found = bench.run(path, 52, names)
    assert bench.now == 52
    first, second = (found["cells"][name] for name in names[:2])
    assert first["done"]
    assert not second["done"]
    assert "b4-fp16" not in found["cells"]
    assert len(second["found"][CONVOY]["turns"]["speed"]) == 2
    # The table has the interrupted cell's results; what is missing is listed below it.
    table = markdown(found, EVERY)
    assert table.count("| resnet50 | AMP, float16 | 256 | Convoy | 1,000 (1,000–1,000) |") == 1
    assert "| efficientnet-b4 |" not in table
    (line,) = (line for line in table.splitlines() if NOT_YET in line)
    assert "b4-fp16, Convoy; b4-fp16, timm, torch.compile" in line
    assert "b0-fp16, Convoy" not in line

    bench.turns.clear()
    found = bench.run(path, 100, names)
    assert all(found["cells"][name]["done"] for name in names)
    assert len(bench.turns) == 16  # those of the second and third cell
    assert found["cells"]["b0-fp16"] == first


def test_no_cell_starts_in_the_last_seconds(bench, tmp_path):
    found = bench.run(
        tmp_path / "gpu.json", 28 + gpu.LAST_START_S - 1, ["b0-fp16", "resnet50-fp16"]
    )
    assert list(found["cells"]) == ["b0-fp16"]
    assert bench.now == 28


def test_results_of_two_cards_are_not_mixed(bench, tmp_path):
    path = tmp_path / "gpu.json"
    bench.run(path, 100, ["b0-fp16"])
    with pytest.raises(SystemExit, match=r"A100.*not of NVIDIA L4.*--out"):
        gpu.begin_results(path, Card("NVIDIA L4", 23034.0, "580"), tiny=False)


def test_the_tables_compare_with_the_other_programs(bench, tmp_path):
    # Keras' ResNet50 is v1 and does less work: 1,500 × 3.86 / 4.09.
    bench.speeds = {CONVOY: 3000.0, COMPILED: 2000.0, EAGER: 1500.0, FIT: 1415.648, DEVICE: 1980.0}
    names = ["resnet50-fp16", "resnet50-fp16-peers", "resnet50-input"]
    table = markdown(bench.run(tmp_path / "gpu.json", 200, names), EVERY)
    lines = [line for line in table.splitlines() if line.startswith("| resnet50 | AMP")]
    # 3,000 × 6 × 4.09e9 / 312e12 = 23.6 %
    assert lines[0] == (
        "| resnet50 | AMP, float16 | 256 | Convoy | 3,000 (3,000–3,000) |  | 23.6 | 2.0 | 2,470 |"
    )
    ratios = {line.split(" | ")[3]: line.split(" | ")[5] for line in lines[1:]}
    assert ratios == {COMPILED: "1.50", EAGER: "2.00", FIT: "2.12"}
    assert f"| {FIT} | 1,500 (1,500–1,500) |" in table
    assert f"| resnet50 | {HOST} | 256 | 1,000 (1,000–1,000) | 0.500 (0.500–0.500) | 1.50" in table
    assert (
        f"| resnet50 | {DEVICE} | 256 | 1,980 (1,980–1,980) | 0.990 (0.990–0.990) | 1.50" in table
    )


# ---- a real process ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_a_tiny_benchmark_runs_on_any_machine(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(tmp_path)]
    command += ["--rounds", "2", "--turn_s", "0.1", "--budget_s", "1800"]
    # Without B0, and without float16 beside other programs: XLA on a CPU takes minutes for each.
    command += ["--only", "resnet50-bf16", "resnet50-input"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1900)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(found["cells"]) == {"resnet50-bf16", "resnet50-input"}
    for name, labels in (("resnet50-bf16", [CONVOY]), ("resnet50-input", [HOST, DEVICE])):
        cell = found["cells"][name]
        assert cell["done"], name
        for label in labels:
            assert len(cell["found"][label]["turns"]["speed"]) == 2, cell["notes"]
    # PyTorch is measured if it is installed.
    cell = found["cells"]["resnet50-bf16"]
    assert COMPILED in cell["found"] or "not installed" in cell["notes"][COMPILED]
    assert (tmp_path / "gpu.md").read_text() in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.stdout.count("measured before") == 2


def test_a_python_without_packages_takes_them_from_the_unpacked_bundle(tmp_path):
    """A GPU machine has no PyYAML, say: the check failed there before its first measurement."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "yaml").symlink_to(Path(yaml.__file__).parent)
    bare = [sys.executable, "-S", "-m", "benchmarks.gpu", "--tiny", "--only", "no-such-cell"]
    done = subprocess.run(
        [*bare, "--site", tmp_path, "--out", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "no cell has such a name; there are: b0-fp16" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_check_for_a_gpu_runs_step_by_step_on_a_cpu(tmp_path):
    """Its measurement of other programs, which the test above runs, gets no time here."""
    done = subprocess.run(
        [ROOT / "benchmarks/gpu/check.sh"],
        env=os.environ
        | {"PYTHON": sys.executable, "OUT": str(tmp_path), "TINY": "1", "SECONDS_LEFT": "600"}
        | {"SKIP": "peers"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    lines = [line for line in done.stdout.splitlines() if " ended after " in line]
    steps = ["env", "nccl", "half", "augmentation", "channels_first"]
    assert [line.split(":")[0] for line in lines] == steps, done.stdout
    assert done.returncode == 0
    exchanged = (tmp_path / "nccl.log").read_text()
    assert "through Gloo, on the CPU, 1 process" in exchanged
    assert exchanged.count("right, ") == 7
