"""TensorFlow's own optimizer complains of graphs that it cannot follow, in runs that go well."""

import pytest

from main import main


@pytest.mark.parametrize("mode", ["predict", "export"])
def test_no_line_of_tensorflows_optimizer(trained, photos, tiny, tmp_path, capfd, mode):
    """As of a shape turned round by a negative stride: "layout failed: … Subshape must …"."""
    flags = ["--mode", mode, "--model_dir", str(trained.model_dir), "--output", str(tmp_path / "x")]
    flags += ["--predict_dir", str(photos)] if mode == "predict" else ["--data_dir", str(tiny)]
    assert main([*flags, "--exif_orientation", "apply"]) == 0
    assert "meta_optimizer" not in capfd.readouterr().err
