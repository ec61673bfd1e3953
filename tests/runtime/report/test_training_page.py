"""`--mode report`: pages about one run or several, finished, killed or missing."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from convoy.runtime.report import training_page
from convoy.runtime.report.comparison import differences
from convoy.runtime.run_folder.history import RANK_TIMES, read_run
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.trackers.workers import Trackers
from convoy.utils.logging import make_json_logger
from main import main
from tests.runtime.loaded_modules import run_and_report

pytest.importorskip("matplotlib", reason="the extra report is not installed")

HOSTILE = "<script>alert(1)<b> & co"


def write_run(folder, epochs=4, finished=True, **settings):
    """Writes the folder that a run of two ranks and three steps an epoch leaves; returns it."""
    folder.mkdir(parents=True)
    config = Config(model_dir=str(folder), max_epochs=epochs, **settings)
    (folder / "config.yaml").write_text(config.to_yaml())
    log = make_json_logger(folder / "log.json")
    log.parameters({"mode": "train_and_eval"})
    for step in range(1, 3 * epochs + 1):
        values = {"train.loss": 3 / step, "train.top1": 1 - 1 / step, "train.lr": 0.1}
        values |= {"train.grad_norm": 2.0, "train.total_ips": 90.0, "train.compute_ips": 95.0}
        log.log(((step + 2) // 3, step), values)
        if step % 3 == 0 and (finished or step < 3 * epochs):
            epoch = step // 3
            times = dict(
                zip(RANK_TIMES, ([0.001, 0.001], [0.02, 0.02], [0.01, 0.019]), strict=True)
            )
            log.log((epoch,), values | times | {"step": step})
            top1 = 0.35 if epoch == 2 else 0.25
            log.log((epoch,), {"eval_loss": 1.0, "eval_accuracy_top_1": top1})
    if finished:
        log.log((), {"training_loss": 0.25})
    log.close()
    (folder / "environment.json").write_text('{"python": "3.11", "hosts": ["here", "there"]}')
    return folder


def text_of(page):
    """Returns the visible text of a page, without tags and styles."""
    body = re.sub(r"(?s)<style>.*?</style>|<svg.*?</svg>", "", Path(page).read_text())
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def loads_nothing(page):
    content = Path(page).read_text()
    links = re.findall(r"(?:src|href)=\"([^\"]*)\"", content)
    return all(link.startswith(("data:", "#")) for link in links) and "@import" not in content


def run_report(*flags):
    return main(["--mode", "report", *map(str, flags)])


def test_the_best_top1_names_the_moving_average_if_it_is_better(tmp_path):
    run = read_run(str(write_run(tmp_path / "run")))
    assert ("best top-1", "35.00%", "epoch 2") in training_page.tiles(run)
    run.history.epochs[3]["eval_accuracy_top_1"] = None  # NaN, as log.json stores it
    run.history.epochs[3]["eval_ema_accuracy_top_1"] = 0.5
    assert ("best top-1", "50.00%", "moving average, epoch 3") in training_page.tiles(run)


def test_a_runs_page_shows_its_figures_ranks_and_charts(tmp_path, capsys):
    from PIL import Image

    folder = write_run(tmp_path / "run")
    assert run_report("--model_dir", folder, "--report_images", 0, "--data_dir", "nowhere") == 0
    page = folder / "report.html"
    assert f"wrote {page}" in capsys.readouterr().out
    text = text_of(page)
    assert "finished after 4 epochs" in text
    assert "35.00% epoch 2" in text, "the best"
    assert "evaluation top-1 35.00% 25.00%" in text, "best and last"
    assert re.search(r"0 · here 1\.0 20\.0 10\.0 1 · there 1\.0 20\.0 19\.0", text)
    assert "hosts here, there" in text
    assert 'class="bad">19.0' in page.read_text(), "the slow rank is marked"
    assert "max_epochs 4 300" in text
    assert loads_nothing(page)
    names = {file.name for file in (folder / "report").iterdir()}
    assert names == {
        *("loss.png", "accuracy.png", "learning_rate.png", "throughput.png", "gradient_norm.png"),
    }
    for file in (folder / "report").iterdir():
        pixels = np.asarray(Image.open(BytesIO(file.read_bytes())).convert("L"))
        assert pixels.std() > 5, file.name


def test_the_page_of_an_unfinished_run_says_so_and_notes_missing_parts(tmp_path):
    folder = write_run(tmp_path / HOSTILE, epochs=1, finished=False)
    assert run_report("--model_dir", folder, "--data_dir", tmp_path / "nowhere") == 0
    content, text = (folder / "report.html").read_text(), text_of(folder / "report.html")
    assert "no end in the log" in text
    assert "No epoch has ended yet." in text
    assert "No training images: " in text
    assert "No predictions: no checkpoint in --model_dir" in text
    assert "<script>" not in content
    assert "&lt;script&gt;alert(1)&lt;b&gt; &amp; co: training of" in content


def test_a_single_host_is_not_named(tmp_path):
    folder = write_run(tmp_path / "run", epochs=1)
    facts = {"python": "3.11", "hosts": ["hidden", "hidden"], "horovod": {}, "dali": None}
    (folder / "environment.json").write_text(json.dumps(facts))
    run = read_run(str(folder))
    assert [row["host"] for row in training_page.rank_table(run)] == ["", ""]
    assert training_page.environment(run) == [("python", "3.11")]


def test_an_error_while_making_pictures_becomes_a_note_on_the_page(tmp_path, monkeypatch):
    """One cause is a GPU without memory; TensorFlow's errors are not OSErrors."""
    from convoy.runtime.report import samples

    def fail(*_):
        raise IndexError("of no use")

    monkeypatch.setattr(samples, "augmented", fail)
    monkeypatch.setattr(samples, "explained", fail)
    folder = write_run(tmp_path / "run", epochs=1)
    training_page.write_report(read_run(str(folder)).config)
    text = text_of(folder / "report.html")
    assert "No training images: IndexError: of no use" in text
    assert "No predictions: IndexError: of no use" in text


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_report("--model_dir", tmp_path)
    assert "is not the folder of a training run" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["--mode", "list", "--runs", str(tmp_path)])
    assert "--runs is for --mode report" in capsys.readouterr().err


def test_a_trained_runs_page_has_training_images_and_grad_cam(trained, tiny, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.model_dir, folder)
    seen = []

    class Seen(Trackers):
        def image(self, name, pixels, step):
            seen.append((name, pixels.shape, step))

    config = load_config(folder / "config.yaml")
    training_page.write_report(config.with_(model_dir=str(folder), report_images=3), Seen())
    content, text = (folder / "report.html").read_text(), text_of(folder / "report.html")
    assert content.count('alt="its Grad-CAM"') == 3
    assert content.count('alt="training image"') == 3
    assert loads_nothing(folder / "report.html")
    assert re.search(r"Checkpoint step-000000\d\d .* its maps of \d × \d are enlarged", text)
    assert "crop " in text
    assert "tensorflow-cpu" in text, "the page lists the environment"
    assert seen == [("training_images", (64, 64, 3), 14), ("grad_cam", (96, 64, 3), 14)]


def test_an_error_in_the_report_at_the_end_of_training_is_a_warning(tmp_path, capsys, monkeypatch):
    config = Config(model_dir=str(write_run(tmp_path / "run")), report_images=0)

    def fail(*_, **__):
        raise ZeroDivisionError("of no use")

    monkeypatch.setattr(training_page, "read_run", fail)
    training_page.report_training(config, Trackers())
    assert (
        "WARNING: no report was written (ZeroDivisionError: of no use)" in capsys.readouterr().err
    )
    training_page.report_training(config.with_(training_report=False), Trackers())
    assert capsys.readouterr() == ("", "")


def test_runs_are_compared_without_tensorflow(tmp_path):
    a = write_run(tmp_path / "one" / "same", lr_init=0.1)
    b = write_run(tmp_path / "two" / "same", epochs=2, lr_init=0.3, finished=False)
    c = write_run(tmp_path / HOSTILE, lr_init=0.1)
    page = tmp_path / "pages" / "comparison.html"
    page.parent.mkdir()  # an existing folder: the page goes into it
    done = run_and_report("--mode", "report", "--runs", a, b, c, "--output", page.parent)
    assert done.stdout.splitlines()[-1] == "code 0 loaded []", done.stderr
    text, content = text_of(page), page.read_text()
    assert "3 runs compared" in text
    assert f"{a} {b}" in text, "runs of the same name are distinguished by path"
    assert "lr_init 0.1 0.3 0.1" in text
    assert "max_epochs 4 2 4" in text
    assert "evaluation top-1 35.00% 25.00% 35.00%" in text
    assert "<script>" not in content
    assert loads_nothing(page)
    assert (page.parent / "comparison" / "loss_train_loss.png").exists()


def test_runs_that_differ_only_in_their_folder_have_no_differences(tmp_path):
    runs = [read_run(str(write_run(tmp_path / name, epochs=1))) for name in "ab"]
    assert differences(runs) == []


def test_a_sheet_of_pictures_is_about_square_and_keeps_the_order():
    pictures = [np.full((2, 4, 3), number, np.uint8) for number in range(1, 6)]
    got = training_page.sheet(pictures)
    assert got.shape == (6, 8, 3)
    np.testing.assert_array_equal(got[::2, ::4, 0], [[1, 2], [3, 4], [5, 0]])
