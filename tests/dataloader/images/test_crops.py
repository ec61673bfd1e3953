"""Decoding and cropping, compared with Pillow and with geometry in NumPy."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.images.crops import UNIFORMS, crop_window, eval_decode, random_crop_decode
from convoy.dataloader.images.decoders import decode_image
from convoy.dataloader.images.eval_crop import EvalCrop


def picture(height=75, width=100, seed=0):
    """Returns a smooth image that JPEG keeps well, uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}]
)
def test_jpegs_decode_as_with_pillow(options):
    data = encoded(picture(), **options)
    ours = decode_image(tf.constant(data)).numpy().astype(int)
    assert np.abs(ours - np.asarray(Image.open(io.BytesIO(data)))).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_png_bmp_and_gif_decode_as_with_pillow(kind):
    data = encoded(picture(), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (decode_image(tf.constant(data)).numpy() == expected).all()
    for crop in (EvalCrop(), EvalCrop(method="resize")):
        assert eval_decode(tf.constant(data), 32, crop).shape == (32, 32, 3)
    assert random_crop_decode(tf.constant(data), tf.constant([1, 2]), 32).shape == (32, 32, 3)


def test_grey_and_cmyk_become_rgb():
    grey = picture()[..., 0]
    for kind in ("JPEG", "PNG"):
        image = decode_image(tf.constant(encoded(grey, kind))).numpy()
        assert image.shape == (75, 100, 3)
        assert (image[..., 0] == image[..., 2]).all()
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(buffer, "JPEG")
    assert decode_image(tf.constant(buffer.getvalue())).shape == (75, 100, 3)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff rubbish", b"\x89PNG\r\n\x1a\n"])
def test_data_that_is_no_image_is_refused(data):
    for function in (
        decode_image,
        lambda e: eval_decode(e, 8, EvalCrop()),
        lambda e: random_crop_decode(e, tf.constant([0, 0]), 8),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            function(tf.constant(data))


def test_a_truncated_jpeg_is_refused():
    data = encoded(picture(200, 200, 1), quality=95)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(data[: len(data) // 2]))


def bilinear(image, height, width):
    """Resizes bilinearly with half-pixel centres, no antialiasing, as torch and TensorFlow 2 do."""

    def weights(old, new):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        matrix = np.zeros((new, old))
        matrix[np.arange(new), low] += 1 - (at - low)
        matrix[np.arange(new), np.minimum(low + 1, old - 1)] += at - low
        return matrix

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), columns)


@pytest.mark.parametrize("shape", [(75, 100), (101, 60), (64, 64), (33, 200)])
@pytest.mark.parametrize(("size", "padding"), [(32, 32), (48, 0), (50, 7)])
def test_the_centre_square_is_cut_out_and_resized(shape, size, padding):
    image = picture(*shape)
    side = int(size / (size + padding) * min(shape) + 1e-9)
    y, x = (shape[0] - side + 1) // 2, (shape[1] - side + 1) // 2
    expected = bilinear(image[y : y + side, x : x + side], size, size)
    ours = eval_decode(tf.constant(encoded(image, "PNG")), size, EvalCrop(padding)).numpy()
    assert ours.dtype == np.uint8
    assert np.abs(ours - expected).max() <= 0.51  # rounded to nearest
    # The fused JPEG path cuts out the same pixels as decoding the whole image.
    data = encoded(image, quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)))[y : y + side, x : x + side]
    ours = eval_decode(tf.constant(data), size, EvalCrop(padding)).numpy()
    assert np.abs(ours - bilinear(whole, size, size)).mean() < 0.6


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_an_evaluation_crop_has_the_pixels_that_the_whole_jpeg_has(subsampling):
    """libjpeg computes the colours at the sides of a crop as if the picture ended there."""
    for seed, shape in enumerate([(75, 100), (101, 60), (96, 128), (64, 64), (33, 200)]):
        data = encoded(picture(*shape, seed), subsampling=subsampling)
        whole = np.asarray(Image.open(io.BytesIO(data)))
        for side in range(min(shape) - 20, min(shape) + 1):
            y, x = (shape[0] - side + 1) // 2, (shape[1] - side + 1) // 2
            part = encoded(whole[y : y + side, x : x + side], "PNG")
            crop = EvalCrop(0)
            padding = next(p for p in range(400) if min(shape) * 200 // (200 + p) == side)
            ours = eval_decode(tf.constant(data), 200, EvalCrop(padding)).numpy()
            assert (ours == eval_decode(tf.constant(part), 200, crop).numpy()).all(), (shape, side)


@pytest.mark.parametrize("shape", [(75, 100), (101, 60), (64, 64), (33, 200)])
@pytest.mark.parametrize(("size", "padding"), [(32, 4), (48, 0), (50, 7)])
def test_resize_then_crop_equals_torchvisions(shape, size, padding):
    image = picture(*shape)
    short = size + padding
    height, width = (
        (short, int(short * shape[1] / shape[0]))
        if shape[0] <= shape[1]
        else (int(short * shape[0] / shape[1]), short)
    )
    top, left = round((height - size) / 2), round((width - size) / 2)
    crop = EvalCrop(padding, "resize")
    ours = eval_decode(tf.constant(encoded(image, "PNG")), size, crop).numpy()
    expected = bilinear(image, height, width)[top : top + size, left : left + size]
    assert np.abs(ours - expected).max() <= 0.51
    # With antialiasing, compare with Pillow, which rounds between its two passes.
    pillow = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    crop = EvalCrop(padding, "resize", antialias=True)
    ours = eval_decode(tf.constant(encoded(image, "PNG")), size, crop).numpy().astype(int)
    assert np.abs(ours - np.asarray(pillow)[top : top + size, left : left + size]).max() <= 2


def test_bicubic_resizing_clips_instead_of_wrapping():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 255
    crop = EvalCrop(0, interpolation="bicubic")
    ours = eval_decode(tf.constant(encoded(image, "PNG")), 64, crop).numpy()
    assert ours[:, :25].max() < 60
    assert ours[:, 40:].min() > 200


def test_an_eval_crop_round_trips_and_refuses_invalid_values():
    crop = EvalCrop(16, "resize", "bicubic", True)
    assert EvalCrop(**crop.to_dict()) == crop
    for wrong in (
        *({"padding": -1}, {"method": "squeeze"}, {"interpolation": "cubic"}),
        *({"arithmetic": "pillow"}, {"arithmetic": "tensorflow", "method": "resize"}),
        *({"rounded": False}, {"arithmetic": "opencv"}),
        {"arithmetic": "pillow", "method": "resize", "interpolation": "lanczos3"},
    ):
        with pytest.raises(ValueError, match=r"eval crop|interpolation 'cubic' is not one of"):
            EvalCrop(**wrong)


def windows(shape, count, area=(0.05, 1.0), ratio=(0.75, 1.333)):
    uniforms = tf.random.stateless_uniform([count, UNIFORMS], [1, 2])

    @tf.function(autograph=False)
    def every(uniforms):
        def one(u):
            return crop_window(tf.constant(shape), u, area, ratio)

        return tf.map_fn(one, uniforms, fn_output_signature=tf.int32)

    return every(uniforms).numpy()


@pytest.mark.parametrize("shape", [(375, 500), (500, 375)])
def test_random_crops_are_distributed_like_torchvisions(shape):
    """The reference is torchvision's sampling loop, rewritten in NumPy."""
    ours = windows(shape, 4000)
    y, x, h, w = ours.T
    assert (ours >= 0).all()
    assert min(h.min(), w.min()) >= 1
    assert (y + h).max() <= shape[0]
    assert (x + w).max() <= shape[1]
    ratios = w / h
    assert ratios.min() > 0.74
    assert ratios.max() < 1.35
    rng = np.random.default_rng(0)
    theirs = []
    for _ in range(4000):
        for _ in range(10):
            target = rng.uniform(0.05, 1.0) * shape[0] * shape[1]
            aspect = np.exp(rng.uniform(np.log(0.75), np.log(1.333)))
            tw, th = round((target * aspect) ** 0.5), round((target / aspect) ** 0.5)
            if 0 < tw <= shape[1] and 0 < th <= shape[0]:
                break
        theirs.append((rng.integers(0, shape[0] - th + 1), th * tw, tw / th))
    theirs = np.array(theirs)
    for mine, reference in zip((y, h * w, ratios), theirs.T, strict=True):
        points = np.linspace(0.02, 0.98, 49)
        spread = np.ptp(reference)
        gap = np.abs(np.quantile(mine, points) - np.quantile(reference, points)).max()
        assert gap < 0.05 * spread


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 1000), (0, 433, 100, 133)), ((1000, 100), (433, 0, 133, 100)), ((1, 1), (0, 0, 1, 1))],
)
def test_the_fallback_is_the_largest_centre_crop(shape, expected):
    """A crop of the whole area does not fit these shapes."""
    for window in windows(shape, 5, area=(1.0, 1.0)):
        assert np.abs(window - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_random_crop_is_cut_resized_and_sometimes_flipped(kind):
    image = picture(120, 160)
    data = encoded(image, kind, **({"quality": 95} if kind == "JPEG" else {}))
    whole = np.asarray(Image.open(io.BytesIO(data)))
    flips = 0
    for i in range(12):
        seed = tf.constant([i, 77])
        uniforms = tf.random.stateless_uniform([UNIFORMS], seed, alg="philox")
        y, x, h, w = crop_window(
            tf.constant([120, 160]), uniforms, (0.3, 1.0), (0.75, 1.333)
        ).numpy()
        plain = random_crop_decode(tf.constant(data), seed, 40, area=(0.3, 1.0), hflip=0.0).numpy()
        again = random_crop_decode(tf.constant(data), seed, 40, area=(0.3, 1.0)).numpy()
        expected = bilinear(whole[y : y + h, x : x + w], 40, 40)
        assert np.abs(plain - expected).mean() < 1.0
        flipped = (again == plain[:, ::-1]).all()
        assert flipped or (again == plain).all()
        flips += flipped
    assert 2 <= flips <= 10


def test_random_interpolation_is_bilinear_or_bicubic_with_equal_probability():
    data = tf.constant(encoded(picture(60, 80), "PNG"))

    @tf.function(input_signature=[tf.TensorSpec([2], tf.int32)], autograph=False)
    def three(seed):
        names = ("random", "bilinear", "bicubic")
        return [random_crop_decode(data, seed, 24, interpolation=name) for name in names]

    drawn = [[image.numpy() for image in three((i, 5))] for i in range(100)]
    bilinear_ones = [(random == linear).all() for random, linear, _ in drawn]
    bicubic_ones = [(random == cubic).all() for random, _, cubic in drawn]
    both = np.array([bilinear_ones, bicubic_ones])
    assert both.any(axis=0).all()
    both = both[:, ~both.all(axis=0)]  # a crop of exactly 24 px is not resized
    assert both.shape[1] > 90
    assert both[0].mean() == pytest.approx(0.5, abs=5 * 0.5 / both.shape[1] ** 0.5)
