"""Makes small data sets from images in installable packages, as `train/CLASS/` and `val/CLASS/`.

Training and evaluation images have no pixels in common and, in `letters`, no typefaces.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scripts.photo_pieces import PHOTOGRAPHS, pieces, places

Pictures = Iterable[tuple[str, str, Image.Image]]
"""Tuples of split ("train" or "val"), class and picture."""

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# Typefaces by package. Each family is in one split only.
TYPEFACES = {
    "train": {
        "font_caladea": ("Caladea-Regular.ttf", "Caladea-BoldItalic.ttf"),
        "font_fredoka_one": ("FredokaOne-Regular.ttf",),
        "font_hanken_grotesk": ("HankenGrotesk-Light.otf", "HankenGrotesk-BoldItalic.otf"),
        "font_lato": ("Lato-Black.ttf", "Lato-Italic.ttf"),
        "font_roboto": ("Roboto-Regular.ttf", "Roboto-ThinItalic.ttf"),
        "font_source_serif_pro": ("SourceSerifPro-Regular.ttf", "SourceSerifPro-BlackIt.ttf"),
        "matplotlib": (
            "DejaVuSansMono.ttf",
            "DejaVuSerif-Bold.ttf",
            "STIXGeneral.ttf",
            "cmss10.ttf",
        ),
    },
    "val": {
        "font_amatic_sc": ("AmaticSC-Bold.ttf",),
        "font_fjallaone": ("FjallaOne-Regular.ttf",),
        "font_intuitive": ("Intuitive.ttf",),
        "font_manrope": ("Manrope-Regular.ttf", "Manrope-ExtraBold.ttf"),
        "font_rhd": ("RedHatDisplay-Italic.ttf", "RedHatDisplay-Black.ttf"),
        "font_source_sans_pro": ("SourceSansPro-Light.ttf", "SourceSansPro-BoldIt.ttf"),
    },
}
# Folders of Debian's tuxpaint-stamps-default, by subject.
STAMPS = {
    "bird": "animals/birds",
    "coin": "symbols/money",
    "dress": "clothes",
    "fish": "animals/fish",
    "flower": "plants/flowers",
    "fruit": "food/fruit",
    "hand": "symbols/alphabets/asl",
    "house": "town/houses",
    "insect": "animals/insects",
    "letter": "symbols/alphabets/english",
    "mammal": "animals/mammals",
    "planet": "space/planets",
    "sign": "town/roadsigns",
    "tool": "household/tools",
    "vegetable": "food/vegetables",
    "vehicle": "vehicles",
}
STAMPS_MOST = 40  # per class, evenly spaced among its files


def package_folder(name: str) -> Path:
    """Returns the folder of a package. Raises SystemExit if it is not installed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed: pip install -c constraints.txt -e '.[bench]'")
    return Path(spec.submodule_search_locations[0])


def digits(each: int) -> Pictures:
    """Yields scikit-learn's scanned digits.

    Args:
        each: training images per class, at most 100; 40 others are for evaluation.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    for digit in range(10):
        found = scans.images[scans.target == digit]
        for scan in found[:each]:
            yield "train", str(digit), _enlarged(scan)
        for scan in found[100:140]:
            yield "val", str(digit), _enlarged(scan)


def _enlarged(scan: np.ndarray) -> Image.Image:
    grey = np.clip(scan * 255 / 16, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC)


def faces() -> Pictures:
    """Yields scikit-image's 100 faces and 100 other pieces of photographs, grey, 25 × 25 pixels."""
    shown = np.load(package_folder("skimage") / "data" / "lfw_subset.npy")
    for name, half in (("face", shown[:100]), ("other", shown[100:])):
        for number, face in enumerate(half):
            picture = Image.fromarray((255 * face).round().astype(np.uint8))
            yield "val" if number % 2 else "train", name, picture


def photographs() -> Pictures:
    """Yields pieces of twelve photographs, 80 × 80 pixels; every third is for evaluation.

    scripts/photo_pieces.py cuts them.
    """
    for name, (package, file) in PHOTOGRAPHS.items():
        with Image.open(package_folder(package) / file) as photograph:
            for number, piece in enumerate(pieces(photograph.convert("RGB"))):
                yield "train" if number % 3 else "val", name, piece


def textures() -> Pictures:
    """Yields pieces of brick, grass and gravel, grey, 32 × 32 pixels.

    Of each, up to 40 from the upper half are for training, up to 120 from the lower for evaluation.
    """
    for name in ("brick", "grass", "gravel"):
        with Image.open(package_folder("skimage") / "data" / f"{name}.png") as opened:
            picture = opened.convert("L")
        for split, top, most in (("train", 0, 40), ("val", picture.height // 2, 120)):
            half = picture.crop((0, top, picture.width, top + picture.height // 2))
            squares = places(*half.size, 32)
            for i in np.linspace(0, len(squares) - 1, min(most, len(squares))).round().astype(int):
                x, y = squares[i]
                yield split, name, half.crop((x, y, x + 32, y + 32))


def letters() -> Pictures:
    """Yields 26 capital letters and 10 digits in each typeface."""
    for split, packages in TYPEFACES.items():
        for package, files in packages.items():
            folder = package_folder(package)
            for file in files:
                font = ImageFont.truetype(str(next(folder.rglob(file))), 28)
                for character in CHARACTERS:
                    picture = Image.new("L", (40, 40), 255)
                    ImageDraw.Draw(picture).text((20, 20), character, 0, font, anchor="mm")
                    yield split, character, picture


def stamps(folder: Path) -> Pictures:
    """Yields photographs and drawings of things on white, at most 64 pixels wide and high.

    Three tenths are for evaluation.
    """
    for name, place in STAMPS.items():
        files = sorted((folder / place).rglob("*.png"))
        if not files:
            raise SystemExit(
                f"{folder} has no {place}: it must be tuxpaint-stamps-default's stamps/"
            )
        chosen = np.linspace(0, len(files) - 1, min(STAMPS_MOST, len(files))).round().astype(int)
        for number, index in enumerate(chosen):
            with Image.open(files[index]) as opened:
                drawn = opened.convert("RGBA")
            picture = Image.new("RGBA", drawn.size, "white")
            picture.alpha_composite(drawn)
            picture.thumbnail((64, 64))
            yield "val" if number % 10 in (1, 4, 7) else "train", name, picture.convert("RGB")


def makers(stamps_folder: Path) -> dict[str, Callable[[], Pictures]]:
    """Returns functions that make the data sets, by name."""
    return {
        "digits20": lambda: digits(20),
        "digits100": lambda: digits(100),
        "faces": faces,
        "textures": textures,
        "photographs": photographs,
        "letters": letters,
        "stamps": lambda: stamps(stamps_folder),
    }


def write(folder: Path, pictures: Pictures) -> dict[str, int]:
    """Replaces the folder by one PNG per picture. Returns the number of pictures in each split."""
    shutil.rmtree(folder, ignore_errors=True)
    counts = {"train": 0, "val": 0}
    for split, name, picture in pictures:
        target = folder / split / name
        target.mkdir(parents=True, exist_ok=True)
        picture.save(target / f"{counts[split]:04}.png")
        counts[split] += 1
    return counts
