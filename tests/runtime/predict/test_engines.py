"""TensorFlow and ONNX Runtime give the same labels, files and verdicts for every picture."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from convoy.runtime.export import for_labelling
from convoy.runtime.run_folder.checkpoint import read_state
from convoy.runtime.run_folder.which_checkpoint import resolve
from main import main
from tests.dataloader.bad_images.pictures import GOOD, jpeg_claiming, png_claiming
from tests.dataloader.packing import encoded
from tests.runtime.csv_rows import csv_rows
from tests.runtime.predict.without_tensorflow import without_tensorflow

pytest.importorskip("onnxruntime", reason="the extra export: make test-export")
pytest.importorskip("tf2onnx", reason="the extra export: make test-export")


@pytest.fixture(scope="module")
def exported(trained, photos, tmp_path_factory):
    """A copy of a run with an ONNX export of its best checkpoint."""
    run = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(trained.model_dir, run)
    flags = ["--mode", "export", "--model_dir", run, "--export_format", "onnx"]
    assert main([str(flag) for flag in (*flags, "--predict_dir", photos)]) == 0
    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Every kind of picture that is read, turned pictures, and damaged ones."""
    folder = tmp_path_factory.mktemp("nasty")
    y, x = np.mgrid[:40, :60]
    photo = Image.fromarray(np.stack([x * 4, y * 6, 255 - x - y], -1).astype(np.uint8))
    for kind, make in GOOD.items():
        (folder / f"{kind.replace('/', '-')}.jpg").write_bytes(make(photo))
    for number in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = number
        photo.save(folder / f"turned {number}.jpg", exif=tags)
    jpeg = encoded(photo, quality=95)
    for share in range(1, 20):
        (folder / f"cut {share}.jpg").write_bytes(jpeg[: len(jpeg) * share // 20])
    (folder / "no end.jpg").write_bytes(jpeg[:-2])
    (folder / "huge.jpg").write_bytes(jpeg_claiming(photo, 20_000, 20_000))
    (folder / "huge.png").write_bytes(png_claiming(20_000, 20_000))
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    return folder


def rows_of(path):
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], csv_rows(path.with_suffix(".csv"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--crop_padding", "0"),
        ("--eval_crop", "resize", "--flip_tta"),
        ("--evaluation_like", "torchvision"),
        ("--evaluation_like", "keras"),
    ],
)
def test_both_engines_give_the_same_rows(exported, pictures, tmp_path, flags):
    """Auto takes the export, which is of the best checkpoint."""
    flags = ["--mode", "predict", "--model_dir", exported, "--predict_dir", pictures, *flags]
    flags += ["--exif_orientation", "apply"]
    one, other = tmp_path / "one", tmp_path / "other"
    more = ["--engine", "tensorflow", "--output", one]
    assert main([str(flag) for flag in (*flags, *more)]) == 3
    done = without_tensorflow(*flags, "--output", other)
    assert done.returncode == 3, done.stderr
    assert "in ONNX Runtime" in done.stdout
    (rows, table), (other_rows, other_table) = rows_of(one), rows_of(other)
    assert len(rows) == len(other_rows) == len(list(pictures.iterdir()))
    for row, same in zip(rows, other_rows, strict=True):
        assert row["path"] == same["path"]
        assert (row["error"] is None) == (same["error"] is None), (row, same)
        assert row["predictions"][:1] == [] or (
            row["predictions"][0]["class"] == same["predictions"][0]["class"]
        )
        shares = {p["class"]: p["probability"] for p in row["predictions"]}
        for prediction in same["predictions"]:
            got = prediction["probability"]
            assert got == pytest.approx(shares.get(prediction["class"], got), abs=1e-3)
    assert sum(row["error"] is None for row in rows) > len(GOOD)
    assert [list(row) for row in table] == [list(row) for row in other_table]
    assert [bool(row["error"]) for row in table] == [bool(row["error"]) for row in other_table]


@pytest.mark.slow
def test_an_export_of_other_weights_is_not_taken(exported, photos, capsys):
    better = read_state(resolve(exported)).get("better_weights", "raw")
    other = {"raw": "ema", "ema": "raw"}[better]
    flags = ["--mode", "predict", "--model_dir", str(exported), "--predict_dir", str(photos)]
    assert main([*flags, "--weights", other]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "in TensorFlow: " in said
    assert f"and not of the {other} weights" in said


@pytest.fixture
def label(trained, photos, tmp_path, monkeypatch, capsys):
    """Labels photos with a run that has no export; returns rows and output."""
    monkeypatch.setattr(for_labelling, "PAYS_FROM", 2)

    def run(*flags):
        where = ["--model_dir", str(trained.model_dir), "--predict_dir", str(photos)]
        assert main(["--mode", "predict", *where, "--output", str(tmp_path / "out"), *flags]) == 0
        return rows_of(tmp_path / "out")[0], capsys.readouterr().out

    return run


def test_many_images_are_labelled_by_an_export_made_for_them(label, trained):
    rows, said = label()
    assert "exporting the model first" in said
    assert "in ONNX Runtime" in said
    assert not (trained.model_dir / "export").exists()
    other, said = label("--engine", "tensorflow")
    assert "exporting" not in said
    for row, same in zip(rows, other, strict=True):
        assert row["predictions"][0]["class"] == same["predictions"][0]["class"]


def test_many_images_are_labelled_in_tensorflow_if_the_export_is_refused(label, monkeypatch):
    from convoy.runtime.export import export

    def refuse(config):
        raise export.ExportError("onnx: it differs")

    monkeypatch.setattr(export, "export", refuse)
    rows, said = label()
    assert "in TensorFlow: onnx: it differs" in said
    assert rows


def test_no_export_is_made_where_bfloat16_is_about_as_fast(label, monkeypatch):
    monkeypatch.setattr(for_labelling.device, "multiplies_bfloat16", lambda: True)
    assert "in TensorFlow: in bfloat16 an export would hardly save time" in label("--use_amp")[1]
    assert "exporting the model first" in label("--use_amp", "--dtype", "float32")[1]
    monkeypatch.setattr(for_labelling.device, "multiplies_bfloat16", lambda: False)
    assert "exporting the model first" in label("--use_amp")[1]
