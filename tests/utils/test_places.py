"""Home folders in paths, the cache folder, and seeds outside 32 bits."""

import pwd

import pytest

from convoy.utils.places import PlaceError, cache_folder, expand_home
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
