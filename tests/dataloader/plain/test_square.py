"""Without TensorFlow the same files are read, with the same pixels, as in evaluation."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.bad_images.culprits import TF_ERRORS
from convoy.dataloader.images.by_pillow import BadImage
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.images.eval_crop import PILLOWS, EvalCrop
from convoy.dataloader.plain import library, resizing
from convoy.dataloader.plain.square import eval_square
from tests.dataloader.bad_images.pictures import GOOD, jpeg_claiming, png_claiming
from tests.dataloader.mutations import images, mutate
from tests.dataloader.packing import encoded, picture

SIZE = 24
CROPS = [
    EvalCrop(padding, method, interpolation, exif_orientation=orientation)
    for padding, method in ((0, "crop"), (8, "crop"), (0, "resize"), (8, "resize"))
    for interpolation in resizing.KINDS
    for orientation in ("apply", "ignore")
]
OTHER_CROPS = [
    EvalCrop(8, "squash", "bicubic"),
    *(EvalCrop(8, "resize", how, arithmetic="pillow") for how in PILLOWS),
    EvalCrop(0, "squash", "nearest", arithmetic="pillow"),
]


@pytest.fixture(scope="module")
def of_evaluation():
    """Returns evaluation's square, or None for a file that it cannot read."""
    traced = {}

    def square(data, crop, size=SIZE):
        if (crop, size) not in traced:
            traced[crop, size] = tf.function(
                lambda content: eval_decode(content, size, crop),
                input_signature=[tf.TensorSpec([], tf.string)],
                autograph=False,
            )
        try:
            return traced[crop, size](tf.constant(data)).numpy()
        except TF_ERRORS:
            return None

    return square


def ours(data, crop, size=SIZE):
    """Returns our square, or None for a file that cannot be read, which one line explains."""
    try:
        return eval_square(data, size, crop)
    except BadImage as error:
        reason = str(error)
    assert reason
    assert "\n" not in reason
    return None


def assert_same(data, crop, of_evaluation, size=SIZE):
    want, got = of_evaluation(data, crop, size), ours(data, crop, size)
    assert (want is None) == (got is None), (data[:16], crop)
    if want is not None:
        np.testing.assert_array_equal(got, want, str(crop))
    return got


@pytest.fixture(params=["C++", "NumPy"])
def resizer(request, monkeypatch):
    """Resizes by the library, if it is built, or in NumPy."""
    if request.param == "NumPy":
        monkeypatch.setattr(library, "_loaded", lambda: None)
    elif library._loaded() is None:
        pytest.skip("dataloader/plain/native is not built")


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_picture_has_evaluations_pixels(kind, photo, of_evaluation):
    for crop in (*CROPS[::5], *OTHER_CROPS):
        assert assert_same(GOOD[kind](photo), crop, of_evaluation) is not None


def test_black_in_cmyk_counts_as_in_evaluation(of_evaluation):
    """Pillow's own conversion to RGB rounds in another way."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
    data = encoded(Image.fromarray(pixels, "CMYK"), quality=95, subsampling=0)
    assert assert_same(data, CROPS[0], of_evaluation) is not None


@pytest.mark.usefixtures("resizer")
@pytest.mark.parametrize(
    "crop",
    [
        *(*CROPS[::4], *OTHER_CROPS),
        *(pytest.param(crop, marks=pytest.mark.slow) for crop in CROPS[2::4]),
    ],
    ids=str,
)
def test_every_crop_has_evaluations_pixels(crop, of_evaluation):
    for seed, size in enumerate([(36, 24), (61, 38), (24, 24), (7, 90), (300, 200), (1, 1)]):
        for kind, more in (("JPEG", {"subsampling": 2}), ("JPEG", {"subsampling": 1}), ("PNG", {})):
            data = encoded(picture(seed, size), kind, **more)
            for side in (SIZE, 100):
                assert assert_same(data, crop, of_evaluation, side) is not None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_as_in_evaluation(kind, of_evaluation):
    for number in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = number
        data = encoded(picture(number, (61, 38)), kind, exif=tags)
        for crop in CROPS:
            assert assert_same(data, crop, of_evaluation) is not None


@pytest.mark.usefixtures("resizer")
@pytest.mark.parametrize("interpolation", resizing.KINDS)
@pytest.mark.parametrize("size", [(900, 3), (3, 900), (6000, 1), (1, 6000), (20_000, 20)])
def test_long_thin_pictures_have_evaluations_pixels(interpolation, size, of_evaluation):
    crop = EvalCrop(8, "resize", interpolation)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (*size[::-1], 3), np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG")
    for side in (SIZE, 100):
        assert assert_same(data, crop, of_evaluation, side) is not None


@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_cut_jpeg_is_read_if_evaluation_reads_it(more, of_evaluation):
    """Evaluation does not look at the rows below its crop."""
    data, verdicts = encoded(picture(1, (60, 90)), quality=95, **more), set()
    for crop in CROPS[1::4]:
        for cut in range(1, len(data), len(data) // 60):
            verdicts.add(assert_same(data[:-cut], crop, of_evaluation) is None)
    assert verdicts == ({True} if "progressive" in more else {True, False})


@pytest.mark.parametrize(
    "what",
    [
        "no end",
        "tail",
        "marker in the data",
        "TEM in a scan",
        "no 2nd marker",
        "IDAT",
        "tEXt",
        "IEND",
    ],
)
def test_a_damaged_file_is_read_if_evaluation_reads_it(what, photo, of_evaluation):
    jpeg, png = encoded(photo), encoded(photo, "PNG")
    cmyk = encoded(photo.convert("CMYK"))
    text = b"\0\0\0\4tEXtA\0bc" + b"none"  # its checksum is wrong
    damaged = {
        "no end": jpeg[:-2],
        "tail": jpeg + b"more" * 20,
        "marker in the data": jpeg[:-40] + b"\xff\xfe\xff\xff" + jpeg[-36:],
        # a marker without a segment: bytes that look like one's length follow
        "TEM in a scan": jpeg[:-40] + b"\xff\x01\x40" + jpeg[-37:],
        "no 2nd marker": cmyk[:2] + b"none" + cmyk[2:],
        "tEXt": png[:33] + text + png[33:],
        "IDAT": png.replace(b"IDAT", b"IDAS"),
        "IEND": png[:-12],
    }
    for crop in CROPS:
        assert_same(damaged[what], crop, of_evaluation)


def test_files_that_are_no_pictures_or_too_large_are_refused(photo, of_evaluation):
    none = [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF89a", b"text" * 9]
    none += [jpeg_claiming(photo, 20_000, 20_000), png_claiming(20_000, 20_000)]
    none += [jpeg_claiming(photo, 0, 40), png_claiming(0, 40), png_claiming(1_100_000, 1)]
    for data in none:
        assert assert_same(data, CROPS[0], of_evaluation) is None
    with pytest.raises(BadImage, match="more than 89478485 pixels"):
        eval_square(jpeg_claiming(photo, 20_000, 20_000), SIZE, CROPS[0])


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_randomly_damaged_files_are_read_if_evaluation_reads_them(count, of_evaluation):
    rng = np.random.default_rng(7)
    bases, crops, read = images(rng), CROPS[::5], 0
    for _ in range(count):
        data = mutate(bases[rng.integers(len(bases))], rng)
        crop = crops[rng.integers(len(crops))]
        if b"\xff\xc2" in data:  # versions of libjpeg-turbo smooth unfinished pixels differently
            assert (of_evaluation(data, crop) is None) == (ours(data, crop) is None)
        else:
            read += assert_same(data, crop, of_evaluation) is not None
    assert 0.1 < read / count < 0.9
