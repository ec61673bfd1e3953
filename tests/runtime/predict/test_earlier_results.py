"""Results of an earlier prediction stay until a new one is complete."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest

from convoy.runtime.predict.outputs import Csv
from main import main
from tests.runtime.csv_rows import csv_rows


def test_if_nothing_can_be_labelled_the_code_is_1_and_earlier_results_stay(
    predict, photos, tmp_path
):
    every = ("--predict_formats", "table,jsonl,csv,gallery")
    _, before, _, _ = predict(photos, *every)
    page = (tmp_path / "predictions-gallery.html").read_text()
    bad = tmp_path / "in"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"no")
    (tmp_path / "all.zip").write_bytes(b"PK")
    for where, name in ((bad, "a.jpg"), (tmp_path / "all.zip", "all.zip")):
        code, rows, table, text = predict(where, *every)
        assert code == 1
        assert (rows, len(table)) == (before, 12)
        assert "0 images labelled, 1 unreadable" in text
        assert name in text.split("image", 1)[1]
        assert "nothing written, and earlier results stay" in " ".join(text.split())
    assert (tmp_path / "predictions-gallery.html").read_text() == page


def test_a_diverged_model_writes_nothing_over_earlier_results(
    predict, monkeypatch, trained, photos
):
    from convoy.runtime.builders import trained_model as module

    _, before, _, _ = predict(photos)
    model, _ = module.load_model(trained.model_dir)
    model.weights[-1].assign(np.full(10, np.nan, np.float32))
    load = module.trained_model
    monkeypatch.setattr(module, "trained_model", lambda config: replace(load(config), model=model))
    code, rows, _, text = predict(photos)
    assert (code, rows) == (1, before)
    assert "not a number" in " ".join(text.split())
    assert "0 images labelled, 0 unreadable, 12 without an answer" in text


def test_a_prediction_that_fails_midway_leaves_earlier_results_and_tells_where_its_own_are(
    predict, monkeypatch, photos, tmp_path
):
    predict(photos, "--predict_formats", "table,jsonl,csv,gallery")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("predictions*")}
    assert sorted(before) == ["predictions-gallery.html", "predictions.csv", "predictions.jsonl"]
    write = Csv.write

    def fill_up(self, item):
        if item.path.endswith(items[3]):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, item)

    items = [json.loads(line)["path"] for line in before["predictions.jsonl"].splitlines()]
    monkeypatch.setattr(Csv, "write", fill_up)
    code, _, _, text = predict(photos, "--predict_formats", "table,jsonl,csv,gallery")
    assert code == 1
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert len(csv_rows(tmp_path / "predictions.csv.part")) == 3
    said = f"labels so far, of 4 images: {tmp_path / 'predictions.jsonl.part'}"
    assert said in " ".join(text.split())
    monkeypatch.setattr(Csv, "write", write)
    predict(photos)
    assert not (tmp_path / "predictions.csv.part").exists()


def test_a_folder_in_the_place_of_a_file_of_predictions_is_told(trained, capsys, photos, tmp_path):
    (tmp_path / "found.csv").mkdir()
    flags = ("--model_dir", trained.model_dir, "--predict_dir", photos)
    assert main(["predict", *map(str, flags), "--output", str(tmp_path / "found")]) == 2
    assert f"{tmp_path / 'found.csv'} is a folder" in " ".join(capsys.readouterr().err.split())


def test_two_predictions_do_not_mix_their_files(predict, photos, tmp_path, monkeypatch):
    write, codes = Csv.write, []

    def meanwhile(self, item):
        if not codes:
            codes.append(None)
            codes[0], _, _, text = predict(photos, "--top_k", "1")
            said = f"another prediction is writing {tmp_path / 'predictions.jsonl'}"
            assert said in " ".join(text.split())
        write(self, item)

    predict(photos)
    monkeypatch.setattr(Csv, "write", meanwhile)
    code, rows, table, _ = predict(photos, "--top_k", "2")
    assert (code, codes) == (0, [2])
    assert len(rows) == len(table) == 12
    assert {len(row["predictions"]) for row in rows} == {2}
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", "path,label,split\na.jpg,cat,train\n"),
        ("list.jsonl", '{"image": "a.jpg"}\n'),
        ("list-gallery.html", "<!doctype html><title>mine</title>"),
    ],
)
def test_a_file_that_no_prediction_wrote_is_not_replaced(
    trained, photos, tmp_path, name, content, capsys
):
    """`--output` named the user's list of images, and the labels replaced it."""
    (tmp_path / name).write_text(content)
    wanted = name.split(".")[1].replace("html", "gallery")
    flags = [
        "--mode",
        "predict",
        "--model_dir",
        str(trained.model_dir),
        "--predict_dir",
        str(photos),
    ]
    flags += ["--output", str(tmp_path / "list"), "--predict_formats", wanted]
    assert main(flags) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert f"{name} exists, and no prediction wrote it: choose another name" in text
    assert (tmp_path / name).read_text() == content
