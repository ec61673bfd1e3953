"""`--engine`, and ONNX files in modes and with flags that cannot use them."""

import numpy as np
import pytest

from tests.onnx_bytes import metadata, network


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(network(np.eye(3, 2), about=metadata()))
    return path


@pytest.mark.parametrize("mode", ["train", "export", "inference_benchmark"])
def test_other_modes_refuse_an_engine_and_onnx_files(refused, folders, file, mode):
    flags = ["--mode", mode, "--data_dir", folders]
    said = refused(*flags, "--engine", "onnx")
    assert "--engine onnx is for --mode eval and predict: leave it out" in said
    said = refused(*flags, "--pretrained_from_file", file)
    assert f"{file} is an export, which --mode eval and predict apply" in said


def test_pixels_that_only_tensorflow_makes_are_refused(refused, folders, file):
    flags = ["--mode", "eval", "--data_dir", folders, "--pretrained_from_file", file]
    said = refused(*flags, "--evaluation_like", "documents")
    assert f"{file} cannot be applied: --evaluation_like documents decodes and resizes" in said
    file.write_bytes(network(np.eye(3, 2), about=metadata(like="another")))
    assert "prepared like another, which this version does not know" in refused(*flags)


@pytest.mark.parametrize("flags", [["--report"], ["--nproc", "2"]])
def test_an_onnx_file_is_not_for_reports_and_several_processes(refused, folders, file, flags):
    flags = ["--mode", "eval", "--data_dir", folders, *flags]
    assert "an ONNX file is not for " in refused(*flags, "--pretrained_from_file", file)
    assert "an ONNX file is not for " in refused(*flags, "--engine", "onnx")
