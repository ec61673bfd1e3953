"""TensorFlow's graph optimizer prints warnings about unusual graphs in runs without an error."""

import pytest

from main import main


@pytest.mark.parametrize("mode", ["predict", pytest.param("export", marks=pytest.mark.slow)])
def test_no_warning_of_tensorflows_graph_optimizer_is_printed(
    trained, photos, tiny, tmp_path, capfd, mode
):
    """For example for a shape reversed by a stride of -1: "layout failed: … Subshape must …"."""
    flags = ["--mode", mode, "--model_dir", str(trained.model_dir), "--output", str(tmp_path / "x")]
    flags += ["--predict_dir", str(photos)] if mode == "predict" else ["--data_dir", str(tiny)]
    assert main([*flags, "--exif_orientation", "apply"]) == 0
    assert "meta_optimizer" not in capfd.readouterr().err
