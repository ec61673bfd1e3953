"""Home folders in paths, the cache folder, and seeds outside 32 bits."""

import pwd

import pytest

from convoy.utils.places import PlaceError, cache_folder, expand_home, spare_checkpoints
from convoy.utils.seeds import LARGEST, LEAST, fold_seed


def test_a_tilde_is_expanded_only_at_the_beginning(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert expand_home("~", "--out") == "/home/ada"
    assert expand_home("~/runs/x", "--out") == "/home/ada/runs/x"
    assert expand_home("~root/x", "--out") == f"{pwd.getpwnam('root').pw_dir}/x"
    for path in ("runs/~/x", "./~", "gs://bucket/~", "-", "photos/*.jpg", "a~"):
        assert expand_home(path, "--out") == path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "--out is empty"),
        ("  ", "--out is empty"),
        ("a\0b", "zero byte"),
        ("~nobody-here/x", r"--out ~nobody-here/x: there is no user nobody-here .* ./~nobody-here"),
    ],
)
def test_an_invalid_path_is_refused(path, words):
    with pytest.raises(PlaceError, match=words):
        expand_home(path, "--out")


def test_32_bit_seeds_stay_and_others_are_folded_to_32_bits():
    assert [fold_seed(seed) for seed in (0, 7, 2**32 - 1)] == [0, 7, 2**32 - 1]
    large = [-1, -2, 2**32, 2**32 + 1, 2**40, 20261130054730, LARGEST - 2, LEAST]
    folded = [fold_seed(seed) for seed in large]
    assert folded == [fold_seed(seed) for seed in large]
    assert len(set(folded)) == len(large)
    assert all(0 <= seed < 2**32 for seed in folded)
    assert fold_seed(-1) == fold_seed(2**64 - 1), "both are the same 64 bits"


@pytest.mark.parametrize("seed", [LEAST - 1, LARGEST + 1])
def test_seeds_over_64_bits_are_refused(seed):
    with pytest.raises(ValueError, match="64 bits"):
        fold_seed(seed)


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        (None, "/home/ada/.cache"),
        ("", "/home/ada/.cache"),
        ("/scratch", "/scratch"),
        ("~/scratch", "/home/ada/scratch"),
        ("scratch", "/home/ada/.cache"),  # would be another folder for each working directory
    ],
)
def test_the_cache_is_in_the_users_cache_folder(monkeypatch, variable, folder):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert str(cache_folder("native")) == f"{folder}/convoy/native"


@pytest.mark.parametrize(
    "place", ["", "x.csv", "step-00000001/model.safetensors", "step-00000001/new/x", "../link/x"]
)
def test_nothing_is_written_among_the_checkpoints_of_a_run(tmp_path, place):
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step-00000001").mkdir(parents=True)
    (tmp_path / "run" / "link").symlink_to(folder / "step-00000001")
    with pytest.raises(PlaceError, match=rf"--out .* lies among the checkpoints in {folder}, "):
        spare_checkpoints(str(folder / place), "--out")
    spare_checkpoints(str(tmp_path / "run" / "x"), "--out")


def test_a_url_among_checkpoints_is_known_by_its_name():
    for place in ("checkpoints", "checkpoints/", "checkpoints/step-00000001/x"):
        with pytest.raises(PlaceError, match="gs://bucket/run/checkpoints, and"):
            spare_checkpoints(f"gs://bucket/run/{place}", "--out")
    spare_checkpoints("gs://bucket/checkpoints/runs/x", "--out")


def test_a_folder_called_checkpoints_without_any_is_a_folder_like_others(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    spare_checkpoints(str(tmp_path / "checkpoints" / "x"), "--out")
