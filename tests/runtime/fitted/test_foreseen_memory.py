"""What a training step will take, and the warning before its first step."""

import math

import keras
import pytest

from convoy.model import build_model
from convoy.model.weights.load import freeze_backbone
from convoy.runtime.builders.models import build_training_model
from convoy.runtime.fitted import enough_memory
from convoy.runtime.fitted.enough_memory import memory_warning
from convoy.runtime.fitted.foreseen_memory import UPDATE, Foresight, most
from convoy.runtime.settings.config import Config
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.optim.ema import EMA
from convoy.utils.optim.optimizers import OPTIMIZERS, make_optimizer
from main import main

GIB = 2**30
B0 = Config(arch="efficientnet-b0", image_size=64, num_classes=10, train_batch_size=256)


@pytest.fixture(scope="module")
def model():
    keras.utils.clear_session()
    return build_training_model(B0, 10)


def size_of(variables):
    return sum(4 * math.prod(variable.shape) for variable in variables)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_the_optimizers_averages_are_as_keras_counts_them(name):
    model = build_model("efficientnet-test", num_classes=3)
    optimizer = make_optimizer(name)
    optimizer.build(model.trainable_variables)
    config = Config(arch="efficientnet-test", optimizer=name, moving_average_decay=0.9)
    found = Foresight(config, model, 4, gpu=False).peak(1, "none")
    assert found.weights == 4 * model.count_params()
    assert found.slots == size_of(v for v in optimizer.variables if v.shape.rank)
    assert found.average == size_of(EMA(model.weights, 0.9).shadows.values())


def test_the_total_grows_with_the_batch_and_falls_with_what_is_computed_again(model):
    foresight = Foresight(B0, model, 4, gpu=False)
    totals = {how: foresight.peak(256, how).total for how in ("none", "norms", "blocks")}
    assert totals["none"] > totals["norms"] > totals["blocks"]
    found = foresight.peak(256, "blocks")
    assert sum(found.parts().values()) == pytest.approx(found.total)
    widest = 4 * 256 * 32 * 32 * 96  # block2a's expanded map
    assert (found.gaps, foresight.peak(256, "norms").gaps) == (widest, 0)
    half = Foresight(B0, model, 2, gpu=False).peak(256, "none").total
    assert half < foresight.peak(256, "none").total < foresight.peak(512, "none").total
    assert Foresight(B0, model, 4, gpu=True).peak(256, "none").process == 0


def test_a_frozen_backbone_keeps_nothing_for_a_backward_pass(host):
    config = B0.with_(freeze_backbone=True)
    model = build_model("efficientnet-b0", num_classes=5, image_size=64)
    whole = Foresight(B0, model, 4, gpu=False).peak(256, "none")
    freeze_backbone(model, "efficientnet-b0")
    foresight = Foresight(config, model, 4, gpu=False)
    found = foresight.peak(256, "none")
    image = 1280 * 4  # of the classifier's input, and as much of what its dropout leaves
    assert found.moment.kept + found.moment.working < 0.2 * (
        whole.moment.kept + whole.moment.working
    )
    assert found.gaps == 4 * 256 * 32 * 32 * 96
    assert foresight.peak(256, "blocks").moment == found.moment
    kept = foresight._pass("none").kept
    assert image <= kept <= 3 * image
    host(1.5, whole=1.5)
    assert memory_warning(config, model) == ""


def test_the_update_takes_most_where_weights_are_larger_than_maps():
    config = Config(arch="resnet50", image_size=32, optimizer="momentum")
    model = build_model("resnet18", image_size=32, num_classes=10)
    found = Foresight(config.with_(arch="resnet18"), model, 4, gpu=False).peak(1, "none")
    assert found.moment.at == UPDATE
    assert found.moment.gradients == 2 * found.slots


def test_the_largest_batch_takes_no_more_than_the_room_and_one_image_more_does(model):
    foresight = Foresight(B0, model, 4, gpu=False)
    batch = foresight.largest_batch("norms", 2 * GIB)
    assert foresight.peak(batch, "norms").total <= 2 * GIB
    assert foresight.peak(batch + 1, "norms").total > 2 * GIB
    assert foresight.largest_batch("norms", GIB / 4) == 0
    divided = Foresight(B0.with_(optimizer_batch_size=360), model, 4, gpu=False)
    assert 360 % divided.largest_batch("norms", 1.5 * GIB) == 0
    assert [most(lambda n, last=last: n <= last) for last in (0, 1, 6, 8)] == [0, 1, 6, 8]


@pytest.fixture
def host(monkeypatch):
    """Sets a host's free memory for processes that have nothing yet."""

    def give(gib, whole=1000.0, processes=1):
        monkeypatch.setattr(enough_memory, "visible_gpus", lambda: 0)
        monkeypatch.setattr(enough_memory, "free_memory", lambda: gib * GIB)
        monkeypatch.setattr(enough_memory, "memory_with_swap", lambda: whole * GIB)
        monkeypatch.setattr(enough_memory, "resident_memory", lambda: 0)
        monkeypatch.setattr(ranks, "local_size", lambda: processes)

    return give


def test_a_batch_that_does_not_fit_is_named_with_what_would(model, host):
    host(2.0)
    text = memory_warning(B0, model)
    assert text.startswith("WARNING: --train_batch_size 256 needs about 2.")
    assert "GiB, and there are 2.0 GiB free: --train_batch_size " in text
    fits = int(text.split("--train_batch_size ")[2].split()[0])
    foresight = Foresight(B0, model, 4, gpu=False)
    assert foresight.peak(fits, "none").total <= 0.8 * 2 * GIB < foresight.peak(256, "none").total
    assert "with --recompute norms this batch takes 1." in text


def test_there_is_no_warning_for_what_fits_or_may_fit(model, host):
    needed = Foresight(B0, model, 4, gpu=False).peak(256, "none").total / GIB
    for free in (100, needed, 0.95 * needed):  # the last is within the known error
        host(free)
        assert memory_warning(B0, model) == ""
    host(0.85 * needed)
    assert memory_warning(B0, model)


def test_processes_of_a_host_share_its_memory(model, host):
    host(6.0)
    assert memory_warning(B0, model) == ""
    host(6.0, processes=4)
    assert "1.5 GiB free for each of 4 processes" in memory_warning(B0, model)


def test_a_batch_far_beyond_a_hosts_memory_is_refused(model, host):
    host(0.8, whole=1.0)
    with pytest.raises(ConfigError, match=r"about 2\.\d GiB, and there are 1\.0 GiB in all: "):
        memory_warning(B0, model)
    host(0.1, whole=0.2)
    with pytest.raises(ConfigError, match="lower --image_size, or choose a smaller --arch"):
        memory_warning(B0, model)


def test_one_host_that_lacks_memory_warns_the_whole_job(model, host, monkeypatch):
    host(100.0)
    short = enough_memory.Shortage(1.0, False, "there is too little")
    monkeypatch.setattr(enough_memory, "on_each_host", lambda measure: [measure(), short])
    assert memory_warning(B0, model) == "WARNING: there is too little"


@pytest.fixture
def run(tiny, tmp_path, capfd):
    """Runs the program in a mode; returns its exit code and what it said on standard error."""

    def run(mode):
        args = ["--mode", mode, "--arch", "efficientnet-test", "--data_dir", str(tiny)]
        args += ["--model_dir", str(tmp_path / mode), "--train_batch_size", "8"]
        args += ["--no-training_report", "--max_epochs", "1"]
        return main(args), capfd.readouterr().err

    return run


def test_a_run_warns_before_its_first_step(host, run):
    host(0.5)
    code, said = run("train")
    assert code == 0
    assert "WARNING: --train_batch_size 8 needs about 0.8 GiB" in said


@pytest.mark.parametrize("mode", ["train", "lr_find"])
def test_training_far_beyond_a_hosts_memory_ends_before_its_first_step(host, run, tmp_path, mode):
    host(0.1, whole=0.2)
    code, said = run(mode)
    assert code == 2
    assert "GiB in all: lower --image_size" in said
    assert not list((tmp_path / mode).glob("*"))
