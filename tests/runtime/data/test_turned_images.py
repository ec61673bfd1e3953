"""The `--exif_orientation` of a run applies to its predictions, exports and conversions."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from convoy.model.weights.origin import how_applied
from main import main


@pytest.fixture(scope="module")
def turned(tmp_path_factory, writers):
    """Class folders of digits with every EXIF orientation, and the same upright without EXIF."""
    root = tmp_path_factory.mktemp("turned")
    for i, (pixels, label) in enumerate(writers.digits(48)):
        tags = Image.Exif()
        tags[0x0112] = i % 8 + 1
        stream = io.BytesIO()
        Image.fromarray(pixels[:30]).save(stream, "PNG", exif=tags)
        upright = ImageOps.exif_transpose(Image.open(stream))
        for name in ("turned", "upright"):
            folder = root / name / str(label % 2)
            folder.mkdir(parents=True, exist_ok=True)
            if name == "turned":
                (folder / f"{i}.png").write_bytes(stream.getvalue())
            else:
                upright.save(folder / f"{i}.png", exif=b"")
    return root


@pytest.mark.slow
def test_training_prediction_export_and_conversion_apply_exif_orientation(
    turned, small_run, tmp_path, capfd
):
    import tensorflow as tf

    run = {name: str(tmp_path / name) for name in ("turned", "upright")}
    for name, folder in run.items():
        flags = [*small_run, "--data_dir", str(turned / name), "--validation_fraction", "0.2"]
        flags += ["--max_epochs", "1", "--warmup_epochs", "0", "--exif_orientation", "apply"]
        assert main([*flags, "--model_dir", folder]) == 0
    weights = [next((tmp_path / n).glob("checkpoints/*/model.safetensors")) for n in run]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    given = ["--model_dir", run["turned"], "--predict_dir"]
    rows = []
    for name in run:
        out = tmp_path / f"predicted-{name}"
        flags = ["--mode", "predict", "--predict_formats", "jsonl", "--output", str(out)]
        assert main([*flags, *given, str(turned / name)]) == 0
        lines = out.with_suffix(".jsonl").read_text().splitlines()
        rows.append([json.loads(line)["predictions"] for line in lines])
    assert rows[0] == rows[1]

    exported = tmp_path / "export"
    flags = ["--mode", "export", "--output", str(exported)]
    assert main([*flags, *given, str(turned / "turned")]) == 0
    about = json.loads((exported / "export.json").read_text())
    assert about["preprocessing"]["crop"]["exif_orientation"] == "apply"
    served = tf.saved_model.load(str(exported / "savedmodel" / "1")).signatures["serving_default"]
    found = []
    for name in run:
        files = sorted((turned / name).glob("*/*.png"))
        encoded = tf.constant([file.read_bytes() for file in files])
        found.append(served(image_bytes=encoded)["logits"].numpy())
    np.testing.assert_array_equal(*found)

    file = str(tmp_path / "weights.safetensors")
    given = ["--mode", "convert", "--pretrained_from_file", run["turned"], "--output", file]
    assert main(given) == 0
    assert how_applied(file)["exif_orientation"] == "apply"
