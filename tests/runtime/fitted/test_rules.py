"""Defaults that are chosen for the data, and settings that they do not override."""

from dataclasses import asdict, fields, replace

import pytest
import yaml
from PIL import Image

from convoy.runtime.command_line.cli import configure, parse
from convoy.runtime.fitted.choose import choose
from convoy.runtime.fitted.data_facts import are_letters, facts_of, short_side
from convoy.runtime.fitted.rules import BATCH, CHOSEN, FEW_IMAGES, Facts, fitted
from convoy.runtime.run_folder.marker import write_marker
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.images import eval_crop
from convoy.utils.errors import ConfigError
from tests.runtime.class_folders import write_class_folders

PHOTOS = Facts(images=320, eval_images=80, short_side=230)


def test_chosen_settings_are_flags_and_none_is_chosen_from_50000_images_on():
    names = {f.name for f in fields(Config)}
    assert names >= set(CHOSEN)
    assert set(fitted(replace(PHOTOS, letters=True), 224, {})) == set(CHOSEN)
    assert fitted(replace(PHOTOS, images=FEW_IMAGES), 224, {}) == {}


@pytest.mark.parametrize(
    ("images", "processes", "batch", "steps"),
    [(12, 1, 8, 2), (120, 1, 8, 15), (320, 1, 16, 20), (320, 2, 8, 20), (320, 8, 2, 20),
     (1400, 1, 64, 22), (30_000, 1, 64, 469), (30_000, 8, 64, 59), (3, 8, 1, 1)],
)  # fmt: skip
def test_the_chosen_batch_size_leaves_an_epoch_enough_updates(images, processes, batch, steps):
    chosen = fitted(replace(PHOTOS, images=images, processes=processes), 224, {})
    assert chosen["train_batch_size"] == batch <= BATCH[1]
    assert -(-images // (batch * processes)) == steps
    assert 0.8 <= chosen["bn_momentum"] <= 0.99
    # The share of the initial values in batch norm's statistics when the run ends.
    assert chosen["bn_momentum"] ** (steps * chosen["max_epochs"]) < 0.01
    assert chosen["warmup_epochs"] <= chosen["max_epochs"] / 10


@pytest.mark.parametrize(
    ("side", "gpus", "pretrained", "size"),
    [(8, False, False, 96), (48, True, False, 96), (98, False, False, 112),
     (230, False, False, 128), (230, True, False, 224), (48, False, True, 128),
     (4000, False, True, 224), (None, True, False, 224)],
)  # fmt: skip
def test_the_chosen_image_size_follows_the_images_within_bounds(side, gpus, pretrained, size):
    facts = replace(PHOTOS, short_side=side, gpus=gpus, pretrained=pretrained)
    chosen = fitted(facts, 224, {})
    assert (chosen["image_size"], chosen["crop_padding"]) == (size, round(size / 7))


def test_given_settings_are_kept_and_chosen_ones_fit_them():
    given = {"max_epochs": 3, "train_batch_size": 64, "image_size": 64}
    chosen = fitted(PHOTOS, 224, given)
    assert not set(given) & set(chosen)
    assert chosen["warmup_epochs"] == 0.3
    assert chosen["bn_momentum"] == 0.8  # 5 updates an epoch
    assert chosen["crop_padding"] == 9
    assert chosen["lr_init"] == pytest.approx(0.0028)
    # Learning rates depend on the optimizer, so another optimizer keeps the documents' settings.
    chosen = fitted(PHOTOS, 224, {"optimizer": "momentum"})
    assert not {"lr_init", "lr_decay", "weight_decay", "epsilon"} & set(chosen)


def test_loaded_weights_get_fewer_epochs_and_a_lower_learning_rate():
    scratch, tuned = (fitted(replace(PHOTOS, pretrained=x), 224, {}) for x in (False, True))
    head = fitted(replace(PHOTOS, pretrained=True, frozen=True), 224, {})
    assert tuned["max_epochs"] < scratch["max_epochs"]
    assert tuned["lr_init"] < scratch["lr_init"] < head["lr_init"]


@pytest.mark.parametrize(
    ("names", "letters"),
    [(["A", "b", "7"], True), (["0", "1"], False), (["A", "cat"], False), ([], False)],
)
def test_letters_are_not_mirrored(names, letters):
    assert are_letters(names) is letters
    chosen = fitted(replace(PHOTOS, letters=letters), 224, {})
    assert chosen.get("hflip") == (0.0 if letters else None)
    assert "hflip" not in fitted(replace(PHOTOS, letters=letters), 224, {"hflip": 0.5})


NEWER = ("defaults", "exif_orientation")  # settings that the oldest runs lack


@pytest.fixture
def photos(tmp_path):
    """24 training and 8 validation pictures of 60 × 50 pixels in two classes."""

    def picture(label, i):
        return Image.new("RGB", (60, 50), (i, 0, 0))

    splits = {"train": {"cat": 12, "dog": 12}, "val": {"cat": 4, "dog": 4}}
    return write_class_folders(tmp_path / "photos", splits, picture, "png")


def settings(*args):
    return parse([str(arg) for arg in args])


def test_the_command_line_and_configure_choose_the_same_settings(photos, tmp_path, capsys):
    given = {"data_dir": str(photos), "model_dir": str(tmp_path / "run"), "max_epochs": 7}
    config = configure(**given)
    assert facts_of(config, 1) == Facts(24, 8, short_side=50)
    assert (config.image_size, config.train_batch_size, config.max_epochs) == (96, 8, 7)
    assert config == settings(*(f"--{name}={value}" for name, value in given.items()))
    said = capsys.readouterr().err
    assert said.count("chosen for these data (docs/defaults.md") == 2
    assert "image_size=96" in said
    assert "max_epochs" not in said
    assert max(map(len, said.splitlines())) < 80


@pytest.mark.parametrize(
    "flags",
    [("--defaults", "documents"), ("--recipe", "efficientnet-b0/FP32/CPU/500E"),
     ("--config", "configs/efficientnet/b0_500e.yaml"),
     ("--mode", "training_benchmark", "--prof", "3")],
)  # fmt: skip
def test_nothing_is_chosen_for_recipes_benchmarks_and_defaults_documents(
    photos, tmp_path, flags, capsys
):
    config = settings("--data_dir", photos, "--model_dir", tmp_path / "run", *flags)
    assert config.image_size is None
    assert config.exif_orientation == ("ignore" if config.defaults == "documents" else "apply")
    assert "chosen" not in capsys.readouterr().err


def test_a_resumed_run_keeps_the_settings_chosen_at_its_start(
    photos, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    flags = ("--data_dir", photos, "--model_dir", run)
    first = settings(*flags, "--lr_init", 0.5)
    folder = run / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(first.to_yaml())
    monkeypatch.setattr(
        "convoy.runtime.fitted.choose.checkpoint.complete_checkpoints", lambda _: [folder]
    )
    for i in range(1000):  # so many that a new run would get other settings
        Image.new("RGB", (80, 90)).save(photos / "train" / "cat" / f"more{i}.png")
    capsys.readouterr()
    again = settings(*flags, "--resume_checkpoint", "--max_epochs", 50)
    said = " ".join(capsys.readouterr().err.split())
    assert "kept from the run's start (docs/defaults.md; a flag changes it): image_size=96" in said
    assert "chosen" not in said
    for name in CHOSEN:
        want = {"max_epochs": 50}.get(name, getattr(first, name))
        assert getattr(again, name) == want, name
    # A run of a version that chose nothing resumes with the documents' settings.
    before = asdict(first) | {"image_size": None, "train_batch_size": 32}
    (folder / "config.yaml").write_text(
        yaml.safe_dump({name: value for name, value in before.items() if name not in NEWER})
    )
    assert load_config(folder / "config.yaml").defaults == "documents"
    again = settings(*flags, "--resume_checkpoint")
    assert again.exif_orientation == "ignore"
    assert (again.image_size, again.train_batch_size, again.optimizer) == (None, 32, "rmsprop")


def test_unreadable_images_are_ignored_when_the_image_size_is_chosen(photos):
    from convoy.dataloader.sources.find import find_source

    for i in range(5):
        (photos / "train" / "cat" / f"{i}.png").write_bytes(b"not a picture")
    assert short_side(find_source(str(photos), "train", tell=None)) == 50
    for file in photos.glob("train/*/*.png"):
        file.write_bytes(b"not a picture")
    assert short_side(find_source(str(photos), "train", tell=None)) is None


def test_an_empty_data_dir_is_an_error_when_settings_are_chosen(tmp_path):
    config = Config(data_dir=str(tmp_path), model_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="is empty"):
        choose(config, ())


def test_resuming_and_applying_a_run_keep_its_exif_orientation(photos, tmp_path, monkeypatch):
    """Runs older than the flag ignore the orientation."""
    run = tmp_path / "run"
    flags = ("--data_dir", photos, "--model_dir", run)
    assert settings(*flags).exif_orientation == "apply"
    assert settings(*flags, "--exif_orientation", "ignore").exif_orientation == "ignore"
    folder = run / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "state.json"):
        (folder / name).write_text("{}")
    for kept in ("apply", "ignore", None):
        was = asdict(settings(*flags, "--resume_checkpoint", "--exif_orientation", kept or "apply"))
        if kept is None:
            del was["exif_orientation"]
        (folder / "config.yaml").write_text(yaml.safe_dump(was))
        (folder / "COMPLETE.json").unlink(missing_ok=True)
        write_marker(folder)
        assert settings(*flags, "--resume_checkpoint").exif_orientation == (kept or "ignore")
        with monkeypatch.context() as elastic:
            elastic.setattr("convoy.runtime.fitted.choose.ranks.elastic", lambda: True)
            assert settings(*flags, "--resume_checkpoint").exif_orientation == (kept or "ignore")
        for mode in (("eval",), ("predict", "--predict_dir", photos), ("export",)):
            applied = settings("--mode", *mode, "--model_dir", run)
            assert applied.exif_orientation == (kept or "ignore")
            assert eval_crop(applied).exif_orientation == (kept or "ignore")
    other = settings("--mode", "eval", "--model_dir", run, "--exif_orientation", "apply")
    assert eval_crop(other).turn
