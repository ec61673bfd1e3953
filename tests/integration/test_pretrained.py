"""Training starts from weight files, and weight files are converted."""

import shutil

import numpy as np
import pytest

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.settings.config import load_config
from tests.integration.in_process import run


@pytest.fixture
def flags(small_run, tiny):
    """Flags of a short run; a test adds the folder and the number of epochs."""
    return (*small_run, "--data_dir", tiny, "--warmup_epochs", "0")


def test_a_frozen_backbone_keeps_the_files_weights_and_the_classifier_is_new(
    flags, trained, tiny, tmp_path, capsys
):
    source = which_checkpoint.resolve(trained.model_dir, "last")
    out, data = tmp_path / "tuned", tmp_path / "other"
    shutil.copytree(tiny, data)
    (data / "labels.txt").write_text("".join(f"number {i}\n" for i in range(10)))
    more = ("--num_classes", "12", "--pretrained_from_file", source, "--weights", "raw")
    flags = (*flags, "--data_dir", data, *more)
    assert run(*flags, "--freeze_backbone", "--model_dir", out, "--max_epochs", "1") == 0
    said = capsys.readouterr().out
    assert "new classifier: the file has other classes (0, 1, 2, 3, 4, … (10 in all))" in said
    before, after = checkpoint.read(source), checkpoint.read(checkpoint.latest(out))
    kinds = before.ema if before.state["better_weights"] == "ema" else before.model
    for name, weights in after.model.items():
        if name.startswith("predictions/"):
            assert weights.shape[-1] == 12
        else:
            np.testing.assert_array_equal(weights, kinds[name], err_msg=name)


def test_a_classifier_is_copied_class_by_class(flags, trained, tiny, tmp_path, capsys):
    """The run numbers classes differently: 9 is first, 8 last, and 5 has another name."""
    source = which_checkpoint.resolve(trained.model_dir, "last")
    out, data = tmp_path / "tuned", tmp_path / "other"
    names = ["9", "0", "1", "2", "3", "4", "five", "6", "7", "8"]
    shutil.copytree(tiny, data)
    (data / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    more = ("--pretrained_from_file", source, "--lr_init", "1e-12", "--weight_decay", "0")
    assert run(*flags, "--data_dir", data, *more, "--model_dir", out, "--max_epochs", "1") == 0
    text = "classifier: 9 of 10 classes are taken from the file (9, 0, 1, 2, 3, … (9 in all))"
    assert f"{text}; new: five" in capsys.readouterr().out
    before, after = checkpoint.read(source), checkpoint.read(checkpoint.latest(out))
    old = before.ema if before.state["better_weights"] == "ema" else before.model
    for part in ("predictions/kernel", "predictions/bias"):
        for ours, name in enumerate(names):
            same = name != "five" and np.allclose(
                after.model[part][..., ours], old[part][..., int(name)], atol=1e-6
            )
            assert same == (name != "five"), (part, name)


@pytest.mark.slow
def test_a_fine_tuned_run_resumes_without_the_weight_file(flags, trained, tmp_path):
    source, out = tmp_path / "source", tmp_path / "tuned"
    shutil.copytree(which_checkpoint.resolve(trained.model_dir, "last"), source)
    more = ("--pretrained_from_file", source, "--model_dir", out, "--max_epochs", "2")
    assert run(*flags, *more, "--run_epochs", "1") == 0
    shutil.rmtree(source)
    assert run(*flags, *more, "--resume_checkpoint") == 0
    assert checkpoint.read(checkpoint.latest(out)).state["epoch"] == 2
    assert load_config(out / "config.yaml").pretrained_from_file == str(source)


def test_a_file_of_another_family_is_refused_before_training(flags, trained, tmp_path, capsys):
    source = which_checkpoint.resolve(trained.model_dir, "last")
    more = ("--arch", "resnet18", "--pretrained_from_file", source, "--model_dir", tmp_path / "r")
    with pytest.raises(SystemExit) as stopped:
        run(*flags, *more)
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--pretrained_from_file" in said
    assert "family efficientnet" in said


def test_a_file_that_fits_partly_is_refused_before_the_data_are_read(
    flags, trained, photos, tmp_path, capsys
):
    from safetensors.numpy import load_file, save_file

    file = tmp_path / "weights.safetensors"
    convert = ("--mode", "convert", "--model_dir", trained.model_dir, "--output", file)
    assert run(*convert, "--weight_names", "timm") == 0
    arrays = load_file(file)
    save_file(
        {k: v for k, v in arrays.items() if ".se." not in k} | {"x": arrays["bn2.bias"]}, file
    )
    more = ("--pretrained_from_file", file, "--model_dir", tmp_path / "r", "--prof", "1")
    with pytest.raises(SystemExit) as stopped:
        run(*flags, *more, "--data_dir", tmp_path / "none")
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "missing in the file: 8 of its 45 tensors" in said
    assert "left over in the file: 1 (x)" in said
    assert run(*flags, *more, "--mode", "train", "--pretrained_partial") == 0
    assert "8 tensors kept at their initial values" in capsys.readouterr().out

    # Weights for predictions must be complete, but the file may have more.
    predict = ("--mode", "predict", "--arch", "efficientnet-test", "--pretrained_from_file", file)
    predict += ("--predict_dir", photos, "--pretrained_partial", "--output", tmp_path / "out")
    assert run(*predict) == 2
    assert "results would be those of random weights" in " ".join(capsys.readouterr().err.split())
    again = ("--arch", "efficientnet-test", "--output", tmp_path / "again.safetensors")
    save_file(arrays | {"x": arrays["bn2.bias"]}, file)
    again += ("--mode", "convert", "--pretrained_from_file", file)
    with pytest.raises(SystemExit):
        run(*again)
    assert run(*again, "--pretrained_partial") == 0


def test_freezing_a_backbone_without_a_weight_file_is_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(*flags, "--freeze_backbone", "--model_dir", tmp_path / "r")
    assert "--freeze_backbone needs --pretrained_from_file" in capsys.readouterr().err


def test_a_converted_checkpoint_can_start_a_run(flags, trained, tmp_path, capsys):
    target = tmp_path / "weights.safetensors"
    convert = ("--mode", "convert", "--model_dir", trained.model_dir, "--output", target)
    assert run(*convert, "--weights", "ema") == 0
    assert "logits differ by at most 0.00e+00" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(*convert)
    assert "exists already" in " ".join(capsys.readouterr().err.split())
    more = ("--pretrained_from_file", target, "--pretrained_strict", "--prof", "1")
    assert run(*flags, *more, "--mode", "train", "--model_dir", tmp_path / "next") == 0


def refused(capsys, *flags):
    """Returns the error of a conversion that is refused before anything is loaded."""
    with pytest.raises(SystemExit) as stopped:
        run("--mode", "convert", *flags)
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_conversion_uses_its_flags_and_refuses_others(trained, tmp_path, capsys):
    import keras

    target = tmp_path / "a.keras"
    convert = ("--model_dir", trained.model_dir, "--output", target)
    assert run("--mode", "convert", *convert, "--image_size", "48") == 0
    assert keras.saving.load_model(target, compile=False).input_shape == (None, 48, 48, 3)
    assert run("--mode", "convert", *convert, "--overwrite") == 0
    assert keras.saving.load_model(target, compile=False).input_shape == (None, 32, 32, 3)

    again = tmp_path / "a.safetensors"
    assert run("--mode", "convert", *convert[:2], "--output", again, "--image_size", "40") == 0
    from_file = ("--pretrained_from_file", again, "--output")  # the file names its architecture
    assert run("--mode", "convert", *from_file, tmp_path / "b.keras") == 0

    said = refused(capsys, *convert, "--lr_init", "0.1", "--dropout", "0.5")
    assert "--lr_init, --dropout: no effect in --mode convert" in said
    convert = (*convert[:3], tmp_path / "c.keras")
    for flags, problem in (
        (("--arch", "resnet18"), "does not fit resnet18"),
        (("--padding", "symmetric"), "--padding is for files"),
        (("--image_size", "7"), "at least 8 pixels"),
        (("--weights", "both"), "--weights both"),
        (("--weight_names", "timm"), "timm names go into a .safetensors file"),
        (("--output", tmp_path / "c.pth"), "must end in"),
        (("--output", again), "exists already"),
        (("--checkpoint", "step-99"), "step-99"),
    ):
        assert problem in refused(capsys, *convert, *flags)
    names = ("--weight_names", "efficientnet_pytorch", "--output", tmp_path / "c.safetensors")
    resnet = ("--arch", "resnet18", "--pretrained_from_file", again)
    assert "names of a model of the family resnet" in refused(capsys, *resnet, *names)


def test_a_weight_file_evaluates_and_predicts_like_its_checkpoint(
    trained, photos, tiny, tmp_path, capsys, log_lines
):
    """The file has PyTorch's layout and names, and there is no model_dir."""
    file = tmp_path / "weights.safetensors"
    convert = ("--mode", "convert", "--model_dir", trained.model_dir, "--output", file)
    assert run(*convert, "--weights", "raw", "--weight_names", "timm") == 0
    size = ("--eval_batch_size", "16", "--data_dir", tiny)
    applied = ("--arch", "efficientnet-test", "--pretrained_from_file", file)

    def figures(name, *flags):
        folder = tmp_path / name
        assert run("--mode", "eval", *flags, *size, "--log_filename", folder / "log.json") == 0
        data = log_lines(folder / "log.json")[-1]["data"]
        return {key: data[key] for key in data if key.startswith("eval_")}

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    checkpoints = figures("a", "--model_dir", trained.model_dir, "--weights", "raw")
    files = figures("b", *applied, "--model_dir", tmp_path / "b")
    assert files == pytest.approx(checkpoints, abs=1e-6)

    capsys.readouterr()
    out = tmp_path / "labels"
    predict = ("--mode", "predict", *applied, "--predict_dir", photos, "--output", out)
    assert run(*predict, "--num_classes", "10") in (0, 3)
    assert f"predicting with {file}" in capsys.readouterr().out
    assert out.with_name("labels.csv").exists()
    assert run(*predict, "--num_classes", "7") == 2
    assert "has 10 classes, not --num_classes 7" in " ".join(capsys.readouterr().err.split())


def test_a_file_without_a_classifier_is_refused_for_predictions(trained, photos, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    convert = ("--mode", "convert", "--model_dir", trained.model_dir, "--output", whole)
    assert run(*convert, "--weight_names", "timm") == 0
    arrays = load_file(whole)
    save_file({k: v for k, v in arrays.items() if not k.startswith("classifier")}, part)
    predict = ("--mode", "predict", "--arch", "efficientnet-test", "--predict_dir", photos)
    assert run(*predict, "--pretrained_from_file", part, "--output", tmp_path / "out") == 2
    assert "has no classifier" in " ".join(capsys.readouterr().err.split())
