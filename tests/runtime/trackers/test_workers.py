"""Experiment trackers: TensorBoard files, W&B offline, MLflow's file store, and failures."""

import json
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest

from convoy.runtime import runner
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers import workers as trackers
from convoy.runtime.trackers.base import Named
from convoy.runtime.trackers.workers import (
    Trackers,
    Worker,
    check_trackers,
    open_trackers,
    tracker_names,
)
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.signals import Preempted


def needs(package):
    reason = f"{package} is not installed; make test-trackers has it"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


def config(folder, names, **more):
    return Config(model_dir=str(folder), trackers=names, **more)


PICTURE = np.full((4, 6, 3), 200, np.uint8)


def track(settings, resumed=False, steps=(1, 2), end=None):
    """Logs a few figures, a picture and a page as a run does; raises `end` if given."""
    (page := trackers.path_of(settings.model_dir) / "report.html").write_text("<p>hello</p>")
    with open_trackers(settings, resumed) as run:
        for step in steps:
            run.scalars({"train.loss": 1.0 / step, "val.top1": np.float64(0.5)}, step)
        run.image("confusion_matrix", PICTURE, steps[-1])
        run.file(str(page))
        if end:
            raise end


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        ({}, []),
        ({"trackers": ""}, []),
        ({"enable_tensorboard": True}, ["tensorboard"]),
        ({"trackers": "mlflow, wandb"}, ["mlflow", "wandb"]),
        ({"trackers": "wandb,tensorboard", "enable_tensorboard": True}, ["tensorboard", "wandb"]),
    ],
)
def test_the_flags_for_trackers_give_each_name_once(flags, want):
    assert tracker_names(Config(**flags)) == want


def test_unknown_and_missing_trackers_are_refused(monkeypatch, tmp_path):
    with pytest.raises(
        ConfigError, match="there is no comet; choose from tensorboard, wandb, mlflow"
    ):
        check_trackers(config(tmp_path, "comet"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(ConfigError, match=rf"needs the package {name}: pip install"):
            check_trackers(config(tmp_path, name))


def test_without_trackers_nothing_is_written_or_imported(tmp_path, monkeypatch):
    monkeypatch.delattr("convoy.runtime.trackers.backends", raising=False)
    for name in ("convoy.runtime.trackers.backends", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it would be an error
    track_a_step(config(tmp_path, "none"))
    assert not list(tmp_path.iterdir())


def track_a_step(settings):
    with open_trackers(settings, False) as run:
        run.scalars({"loss": 1.0}, 1)


def test_ranks_other_than_0_write_nothing_to_trackers(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers.ranks, "rank", lambda: 1)
    track_a_step(config(tmp_path, "tensorboard"))
    assert not list(tmp_path.iterdir())


def test_tensorboard_keeps_figures_and_pictures_across_a_resume(tmp_path):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(config(tmp_path, "tensorboard"))
    track(config(tmp_path, "tensorboard"), resumed=True, steps=(3,))
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    found = events.Tensors("train/loss")
    assert [event.step for event in found] == [1, 2, 3]
    losses = [float(tf.make_ndarray(event.tensor_proto)) for event in found]
    assert losses == pytest.approx([1, 1 / 2, 1 / 3])
    picture = tf.make_ndarray(events.Tensors("confusion_matrix")[0].tensor_proto)[2]
    np.testing.assert_array_equal(tf.io.decode_png(picture), PICTURE)


class Fake:
    """A tracker that records its calls, and fails or hangs on request."""

    def __init__(self, fail=(), hang=None):
        self.calls, self.fail, self.hang = [], fail, hang

    def start(self, run, known):
        self.calls.append(("start", run.name, known))
        if "start" in self.fail:
            raise OSError("no network")
        return known or "made-id"

    def scalars(self, values, step):
        if self.hang is not None:
            self.hang.wait(10)
        self.calls.append(("scalars", step))
        if step in self.fail:
            raise ConnectionError("network is\n unreachable")

    def finish(self, end):
        self.calls.append(("finish", end))


def run_fake(fake, steps, known=None, end=None):
    kept = {}
    worker = Worker("wandb", lambda: fake, Named("f", "p", "run", {}), known, kept.__setitem__)
    with Trackers([worker]) as run:
        for step in steps:
            run.scalars({"loss": 1.0}, step)
        if end:
            raise end
    return kept


def test_a_tracker_gets_calls_in_order_and_its_run_id_is_kept():
    fake = Fake()
    assert run_fake(fake, (1, 2)) == {"wandb": "made-id"}
    assert fake.calls == [
        ("start", "run", None), ("scalars", 1), ("scalars", 2), ("finish", "finished")
    ]  # fmt: skip
    assert run_fake(again := Fake(), (1,), known="old") == {}
    assert again.calls[0] == ("start", "run", "old")


@pytest.mark.parametrize(
    ("error", "end"),
    [(Preempted("x"), "stopped"), (KeyboardInterrupt(), "stopped"), (ValueError(), "failed")],
)
def test_a_tracker_is_told_whether_a_run_stopped_or_failed(error, end):
    fake = Fake()
    with pytest.raises(type(error)):
        run_fake(fake, (1,), end=error)
    assert fake.calls[-1] == ("finish", end)


def test_a_failing_tracker_is_one_warning_and_later_calls_are_tried(caplog):
    fake = Fake(fail=(2, 3))
    run_fake(fake, range(1, 6))
    assert fake.calls[1:-1] == [("scalars", n) for n in range(1, 6)]
    (record,) = caplog.records
    assert record.message == (
        "--trackers wandb failed (network is unreachable): training continues"
    )


def test_a_tracker_is_disabled_after_five_failures(caplog):
    fake = Fake(fail=range(100))
    run_fake(fake, range(50))
    assert len(fake.calls) == 1 + 5 + 1
    assert "not tried again" in caplog.records[-1].message


def test_a_tracker_that_cannot_start_is_a_warning(caplog):
    fake = Fake(fail=("start",))
    assert run_fake(fake, range(50)) == {}
    assert [call[0] for call in fake.calls] == ["start", "finish"]
    (record,) = caplog.records
    assert "could not start (no network)" in record.message


def test_a_tracker_that_hangs_does_not_delay_training_or_its_end(monkeypatch, caplog):
    monkeypatch.setattr(trackers, "PATIENCE", 0.2)
    monkeypatch.setattr(trackers, "QUEUE", 10)
    gate = threading.Event()
    fake = Fake(hang=gate)
    run_fake(fake, range(100))
    assert fake.calls == [("start", "run", None)], "the run's end must not wait for it"
    assert "did not end in time" in caplog.records[-1].message
    release(gate)


def release(gate):
    """Releases hanging trackers and waits for their threads, so that other tests see none."""
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("convoy-tracker-"):
            thread.join(20)


ENDS = [
    (None, False, "finished", 60.0),
    (Preempted("x"), False, "stopped", 5.0),
    (UserError("x"), False, "failed", 5.0),
    # In an elastic job the processes start again, and the run continues in the same trackers.
    (RuntimeError("hosts changed"), True, "stopped", 20.0),
    (UserError("x"), True, "failed", 5.0),
    (Preempted("x"), True, "stopped", 5.0),
]


@pytest.mark.parametrize(("error", "elastic", "end", "want"), ENDS)
def test_all_trackers_share_one_deadline_that_depends_on_how_the_run_ended(
    monkeypatch, error, elastic, end, want
):
    clock, waited, ends = [100.0], [], []

    class Slow:
        def close(self, end):
            ends.append(end)

        def join(self, time_left):
            waited.append(time_left())
            clock[0] += 3  # as if joining took 3 s

    monkeypatch.setattr(trackers.time, "monotonic", lambda: clock[0])
    with suppress(Preempted, UserError, RuntimeError), Trackers([Slow(), Slow()], goes_on=elastic):
        if error:
            raise error
    assert waited == [want, want - 3]
    assert ends == [end, end]


def test_a_signal_shortens_the_wait_for_hanging_trackers(monkeypatch):
    """The signal comes while the run waits for them."""
    monkeypatch.setattr(trackers, "HURRY", 0.3)
    gate, asked = threading.Event(), []
    named = Named("f", "p", "run", {})
    workers = [Worker("wandb", lambda: Fake(hang=gate), named, None, print) for _ in range(2)]
    with Trackers(workers, hurry=lambda: bool(asked)) as both:
        both.scalars({"loss": 1.0}, 1)
        threading.Timer(0.3, lambda: asked.append(1)).start()
        start = time.monotonic()
    assert 0.5 < time.monotonic() - start < 5
    release(gate)


@pytest.mark.parametrize("hangs", [True, False])
def test_the_program_ends_although_a_tracker_hangs(monkeypatch, capsys, hangs):
    """It calls os._exit then, because W&B's own exit hook would wait."""
    codes, gate = [], threading.Event()
    if not hangs:
        gate.set()
    monkeypatch.setattr(trackers, "HURRY", 0.2 if hangs else 60.0)
    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr(
        runner.Runner, "run", lambda _: run_fake(Fake(hang=gate), (1,), end=Preempted("stop"))
    )
    assert runner.Runner(Config()).main() == 75
    assert codes == [75] * hangs
    release(gate)


def test_mlflow_needs_a_server_if_model_dir_is_a_url(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = config("ram://bucket/run", "mlflow")
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI to your server"):
        check_trackers(settings)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    check_trackers(settings)


def test_run_ids_are_kept_only_for_a_resumed_run(tmp_path):
    settings = config(tmp_path, "wandb")
    (tmp_path / "trackers.json").write_text(json.dumps({"wandb": "abc"}))
    assert trackers._Ids(settings.model_dir, resumed=True).known == {"wandb": "abc"}
    assert trackers._Ids(settings.model_dir, resumed=False).known == {}
    (tmp_path / "trackers.json").write_text("{damaged")
    ids = trackers._Ids(settings.model_dir, resumed=True)
    assert ids.known == {}
    ids.remember("mlflow", "7")
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"mlflow": "7"}


@needs("mlflow")
def test_mlflow_keeps_settings_figures_pictures_and_the_page_across_a_resume(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = config(tmp_path, "mlflow", tracker_project="digits", run_name="first")
    track(settings)
    (known,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    client = MlflowClient(trackers_store(tmp_path))
    run = client.get_run(known)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "digits"
    assert run.data.params["arch"] == settings.arch
    assert len(run.data.params) == len(trackers.asdict(settings))
    names = {file.path for file in client.list_artifacts(known)}
    assert names == {"report.html", "confusion_matrix-00000002.png"}

    with pytest.raises(Preempted):
        track(settings, resumed=True, steps=(3,), end=Preempted("stop"))
    history = client.get_metric_history(known, "train.loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert [metric.value for metric in history] == pytest.approx([1, 1 / 2, 1 / 3])
    assert client.get_run(known).info.status == "KILLED"
    assert "mlflow" in sys.modules


def trackers_store(folder):
    from convoy.runtime.trackers.backends import _store

    return _store(str(folder))


@needs("wandb")
def test_wandb_offline_continues_the_same_run_after_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = config(tmp_path, "wandb", tracker_project="digits", run_name="first")
    track(settings)
    kept = json.loads((tmp_path / "trackers.json").read_text())
    track(settings, resumed=True, steps=(3,))
    assert json.loads((tmp_path / "trackers.json").read_text()) == kept
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert all(kept["wandb"] in file.name for file in files)
    content = b"".join(file.read_bytes() for file in files)
    assert b"train.loss" in content
    assert b"efficientnet-b0" in content
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/*.png"))
