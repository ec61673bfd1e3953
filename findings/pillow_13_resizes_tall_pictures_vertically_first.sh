#!/usr/bin/env bash
# Pillow 13 resizes tall pictures to other bytes than Pillow 12: it resizes them vertically first.
#
# Versions: pillow 12.3.0 and 13.0.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Most expect: Image.resize has given the same bytes for years, so pictures that were prepared with one version equal
#   those that are prepared or served with the next.
# Seen on 2026-12-01: each of the two passes, horizontal and vertical, rounds to bytes, so their order shows. From
#   13.0 on the vertical pass comes first if the height shrinks by more than twice as many pixels as the width:
#   portraits of 2 : 1 and more, and a portrait of 3 : 2 that is squashed to a square. A fifth to a quarter of the
#   values of a noisy picture then differ, with bilinear filters by a level, with bicubic and Lanczos by up to 13,
#   since the first pass also clips. Wide and square pictures keep their bytes, so a test with one landscape
#   photograph does not notice. Thumbnails and prepared data sets no longer match their checksums, and torchvision's
#   and timm's evaluation transforms, which resize Pillow images, give the same weights other pixels.
# What to do: pin Pillow where pixels must agree (prepared data, evaluation, serving).
# Output: at the end. Exits with 1 if the versions agree on tall pictures, or differ on others.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q numpy==2.4.6
for version in 12.3.0 13.0.0; do
  "$place/venv/bin/pip" install -q --no-deps --target "$place/$version" "pillow==$version"
done
cat > "$place/resize.py" <<'PY'
import sys

import numpy as np
from PIL import Image, __version__

rng = np.random.default_rng(0)
found = {}
for name, height, width in (("tall", 640, 213), ("wide", 213, 640), ("square", 427, 427)):
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST)).astype(int)
    pixels = np.clip(smooth + rng.integers(-40, 41, smooth.shape), 0, 255).astype(np.uint8)
    for kind in ("BILINEAR", "BICUBIC", "LANCZOS"):
        half = (width // 2, height // 2)
        found[f"{name} {kind}"] = np.asarray(
            Image.fromarray(pixels).resize(half, Image.Resampling[kind])
        )
print(__version__)
np.savez(sys.argv[1], **found)
PY
for version in 12.3.0 13.0.0; do
  PYTHONPATH="$place/$version" "$place/venv/bin/python" "$place/resize.py" "$place/$version.npz"
done
"$place/venv/bin/python" - "$place" <<'PY'
import sys

import numpy as np

old, new = (np.load(f"{sys.argv[1]}/{version}.npz") for version in ("12.3.0", "13.0.0"))
as_seen = True
for name in old:
    gap = np.abs(old[name].astype(int) - new[name])
    print(f"{name:16} differ {np.mean(gap > 0):6.1%}  by up to {gap.max():2} levels")
    as_seen &= bool(gap.any()) == name.startswith("tall")
sys.exit(0 if as_seen else 1)
PY
# 12.3.0
# 13.0.0
# tall BILINEAR    differ  18.4%  by up to  1 levels
# tall BICUBIC     differ  23.4%  by up to  8 levels
# tall LANCZOS     differ  26.7%  by up to 13 levels
# wide BILINEAR    differ   0.0%  by up to  0 levels
# wide BICUBIC     differ   0.0%  by up to  0 levels
# wide LANCZOS     differ   0.0%  by up to  0 levels
# square BILINEAR  differ   0.0%  by up to  0 levels
# square BICUBIC   differ   0.0%  by up to  0 levels
# square LANCZOS   differ   0.0%  by up to  0 levels
