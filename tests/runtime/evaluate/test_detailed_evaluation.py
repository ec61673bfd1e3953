"""`--mode eval --report`: its files agree with scikit-learn and with a plain evaluation."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
)

from main import main
from tests.runtime.csv_rows import csv_rows
from tests.runtime.evaluate.random_logits import METRICS
from tests.runtime.fitted_run import FittedRun

SPEED = re.compile("avg_|latency|per_second")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run whose raw weights and moving average both beat guessing: the network is untrained, and
    its heads are fitted by least squares to the features of some validation images.
    """
    model_dir = tmp_path_factory.mktemp("report") / "run"
    names = [f"<i>{i}</i> & co" for i in range(10)]
    data = tmp_path_factory.mktemp("named") / "data"
    shutil.copytree(tiny, data)
    (data / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    fitted = FittedRun(data, "validation", 53, names)
    contents = []
    for share in (20, 35):
        x, y = fitted.features[:share], 10 * np.eye(10)[fitted.labels[:share]] - 1
        ridge = 1e-3 * share * x.std(axis=0).max() ** 2 * np.eye(x.shape[1])
        contents.append(fitted.weights(np.linalg.solve(x.T @ x + ridge, x.T @ y)))
    fitted.save(model_dir, *contents)
    return model_dir


@pytest.fixture(scope="module")
def written(run, tiny, log_lines):
    """The report of both sets of weights: its folder, metrics.json, and the logged summary."""
    args = ["--mode", "eval", "--model_dir", str(run)]
    assert main([*args, "--weights", "both", "--report"]) == 0
    folder = run / "eval_report"
    metrics = json.loads((folder / "metrics.json").read_text())
    return SimpleNamespace(
        folder=folder, metrics=metrics, logged=summary_of(log_lines(run / "log.json"))
    )


def summary_of(lines):
    """Returns the figures of the last summary line in a log."""
    return next(line["data"] for line in reversed(lines) if line.get("step") == [])


def test_metrics_json_has_the_figures_that_are_logged(written):
    raw, ema = written.metrics["evaluations"]
    assert (raw["name"], ema["name"]) == ("raw", "ema")
    assert raw["top1"] != ema["top1"], "the fixture's two sets of weights must differ"
    for name in METRICS:
        assert raw["figures"][name] == pytest.approx(written.logged[name], rel=1e-12)
    for evaluation in (raw, ema):
        low, high = evaluation["top1_interval_95"]
        assert low < evaluation["top1"] < high
        figures = evaluation["figures"]
        assert evaluation["top1"] == pytest.approx(figures["eval_accuracy_top_1"], rel=1e-12)
    assert ema["top1_minus_first"] == pytest.approx(ema["top1"] - raw["top1"])


def test_an_evaluation_with_report_prints_the_same_as_without(run, tmp_path, capsys):
    """Only the last line, with the report's path, and the figures of speed differ."""
    args = ["--mode", "eval", "--model_dir", str(run)]
    assert main(args) == 0
    plain = capsys.readouterr().out.splitlines()
    assert main([*args, "--report", "--report_dir", str(tmp_path)]) == 0
    *reported, last = capsys.readouterr().out.splitlines()
    assert last.startswith("wrote ")
    assert [line for line in reported if not SPEED.search(line)] == [
        line for line in plain if not SPEED.search(line)
    ]
    assert re.fullmatch(r"evaluating .* at \d+ px", plain[0])
    assert any("eval_macro_f1" in line for line in reported)


def test_the_csv_files_agree_with_scikit_learn_and_with_the_data(written, writers):
    truth = [label for _, label in writers.digits(150)[97:]]
    for number, evaluation in enumerate(written.metrics["evaluations"]):
        files = {kind: written.folder / name for kind, name in evaluation["files"].items()}
        answers = csv_rows(files["predictions"])
        labels, predicted = (
            np.array([int(row[key]) for row in answers]) for key in ("label", "predicted")
        )
        assert len({(row["file"], row["byte"]) for row in answers}) == 53
        # The examples alternate between two shards.
        np.testing.assert_array_equal(labels, truth[0::2] + truth[1::2])
        judged = classification_report(labels, predicted, output_dict=True, zero_division=0)
        for row in csv_rows(files["per_class"]):
            for mine, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
                want = judged[row["class"]][theirs]
                assert float(row[mine]) == pytest.approx(want, abs=5e-7)
            assert int(row["support"]) == judged[row["class"]]["support"]
            assert row["name"] == f"<i>{row['class']}</i> & co"
        assert evaluation["macro"]["f1"] == pytest.approx(judged["macro avg"]["f1-score"])
        matrix = [[int(row[str(j)]) for j in range(10)] for row in csv_rows(files["confusion"])]
        np.testing.assert_array_equal(matrix, confusion_matrix(labels, predicted))
        assert number or (written.folder / "confusion.csv").exists()


def test_the_page_loads_nothing_and_escapes_class_names(written):
    page = (written.folder / "report.html").read_text()
    without = re.sub(r"base64,[\w+/=\s]*", "", page)
    without = re.sub(r'xmlns(:\w+)?="[^"]*"', "", without)
    assert not re.search(r"(https?:)?//[a-z]", without)
    assert "<link" not in page
    assert "<i>3</i>" not in page
    assert "&lt;i&gt;3&lt;/i&gt; &amp; co" in page
    assert 0 < page.count("data:image/jpeg") <= 36
    assert page.count("<svg") == 4
    identifiers = re.findall(r'\bid="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))
    for name in ("reliability", "confidence", "confusion", "confusion-2"):
        assert (written.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_takes_labels_from_a_file_and_another_image_size(
    run, tiny, tmp_path, writers, capsys
):
    """The file is in the records' order, as they keep no names; it changes two images' labels."""
    truth = [label for _, label in writers.digits(150)[97:]]
    lists = [[label] for label in truth[0::2] + truth[1::2]]
    lists[4], lists[7] = [], list(range(10))
    (tmp_path / "real.json").write_text(json.dumps(lists))
    for name in ("per_class-2.csv", "predictions-8.csv", "confusion-3.csv", "confusion-3.png"):
        (tmp_path / name).touch()  # of an earlier report of more evaluations
    args = ["--mode", "eval", "--model_dir", str(run), "--report", "--report_dir", str(tmp_path)]
    args += ["--eval_labels", str(tmp_path / "real.json"), "--report_image_sizes", "48"]
    assert main(args) == 0
    assert not list(tmp_path.glob("*-?.*"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["data"]["evaluated"] == 52
    (found,) = metrics["evaluations"]
    assert (found["name"], found["image_size"]) == ("48 px", 48)
    answers = csv_rows(tmp_path / "predictions.csv")
    assert answers[6]["label"] == answers[6]["predicted"]  # number 7, after 4 was left out
    stored = np.delete(truth[0::2] + truth[1::2], 4)
    predicted = np.array([int(row["predicted"]) for row in answers])
    assert found["top1_stored_labels"] == pytest.approx(np.mean(stored == predicted))
    assert "1 of 53 images left out" in " ".join((tmp_path / "report.html").read_text().split())
    assert f"wrote {tmp_path / 'report.html'}" in capsys.readouterr().out


def test_a_report_dir_that_cannot_be_written_is_refused_before_evaluating(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    args = ["--mode", "eval", "--model_dir", str(run), "--report"]
    assert main([*args, "--report_dir", str(tmp_path / "file")]) == 1
    out, err = capsys.readouterr()
    assert f"--report_dir {tmp_path / 'file'} cannot be written" in " ".join(err.split())
    assert "evaluating" not in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mode", "train", "--report"), "--report is for --mode eval"),
        (("--mode", "eval", "--report_dir", "x"), "--report_dir has no effect without"),
        (("--mode", "eval", "--weights", "both"), "--weights both is for"),
        (("--mode", "eval", "--report", "--report_image_sizes", "224,x"), "224,x: give pixels"),
        (("--mode", "eval", "--report", "--report_image_sizes", "64,64"), "a size twice"),
        (("--mode", "eval", "--report", "--report_image_sizes", "0"), "--report_image_sizes 0"),
        (("--mode", "eval", "--report", "--report_checkpoints", "no"), "--report_checkpoints no"),
        (("--mode", "eval", "--report", "--report_checkpoints", "best"), "each once"),
        (("--mode", "eval", "--report", "--eval_labels", "no.json"), "no.json cannot be read"),
        (
            (
                *("--mode", "eval", "--report", "--weights", "both"),
                *("--report_image_sizes", "32,40,48,56,64"),
            ),
            "10 evaluations",
        ),
    ],
)
def test_contradictory_flags_of_a_report_are_refused(run, refused, flags, words):
    assert words in refused(*flags, "--model_dir", run)


def same_answers(folder, other):
    """Checks that two reports' predictions differ only in the rounding of confidences.

    The fitted heads have weights of about 100 that nearly cancel: an error of half a unit in the
    last place of each feature (1e-7) moves a confidence by 4e-6, one of 5e-7 by 2e-5.
    """
    pairs = zip(*(csv_rows(one / "predictions.csv") for one in (folder, other)), strict=True)
    for mine, theirs in pairs:
        assert float(mine.pop("confidence")) == pytest.approx(
            float(theirs.pop("confidence")), abs=2e-5
        )
        assert mine == theirs


@pytest.mark.slow
def test_several_ranks_give_the_same_report_with_labels_from_a_file(convoy, run, tmp_path):
    """Each rank reads the names of its share of the images, which have none here."""
    (tmp_path / "real.json").write_text(json.dumps([[i % 10] if i % 7 else [] for i in range(53)]))
    args = ("--mode", "eval", "--model_dir", run, "--report", "--eval_batch_size", 7)
    args += ("--eval_labels", tmp_path / "real.json", "--intraop_threads", 1)
    for ranks in (1, 2):
        convoy(*args, "--report_dir", tmp_path / str(ranks), np=ranks)
    same_answers(tmp_path / "2", tmp_path / "1")
    labels = [int(row["label"]) for row in csv_rows(tmp_path / "2/predictions.csv")]
    assert labels == [i % 10 for i in range(53) if i % 7]


@pytest.mark.slow
@pytest.mark.timeout(900)  # seven launches
def test_reports_of_several_ranks_equal_one_ranks_and_plain_evaluations(
    convoy, run, tmp_path, log_lines
):
    args = ("--mode", "eval", "--model_dir", run, "--report", "--weights", "both")
    args += ("--report_image_sizes", "32,48")
    threads = ("--intraop_threads", "1")
    for ranks in (1, 2, 3):
        folder = tmp_path / str(ranks)
        size = ("--eval_batch_size", 32 if ranks == 1 else 7)
        convoy(*args, *threads, *size, "--report_dir", folder, np=ranks)
    for ranks in (2, 3):
        same_answers(tmp_path / str(ranks), tmp_path / "1")
        for name in ("per_class.csv", "confusion.csv", "confusion-4.csv"):
            assert (tmp_path / str(ranks) / name).read_text() == (tmp_path / "1" / name).read_text()
    found = json.loads((tmp_path / "1/metrics.json").read_text())["evaluations"]
    for evaluation, weights, size in zip(
        found, ("raw", "raw", "ema", "ema"), (32, 48) * 2, strict=True
    ):
        log = tmp_path / f"{weights}-{size}.json"
        plain = ("--mode", "eval", "--model_dir", run, "--weights", weights, "--image_size", size)
        convoy(*plain, "--log_filename", log)
        logged = summary_of(log_lines(log))
        for name in ("eval_loss", "eval_accuracy_top_1", "eval_accuracy_top_5"):
            assert evaluation["figures"][name] == pytest.approx(logged[name], rel=1e-6)
