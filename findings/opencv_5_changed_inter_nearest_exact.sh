#!/usr/bin/env bash
# cv2.resize with INTER_NEAREST_EXACT picks other pixels in OpenCV 5.0 than in 4.12.
#
# Versions: opencv-python-headless 4.12.0.88 and 5.0.0.93, pillow 13.0.0, numpy 2.2.6; Python 3.11, Linux x86-64.
# Most expect: nearest neighbour copies pixels and has nothing to round, and the flag, whose documentation promises the
#   pixels of PIL, scikit-image and Matlab, has kept that promise since it came. So masks and pictures that were resized
#   before an update equal those after it.
# Seen on 2026-12-01: 4.12 differs from Pillow in 9 % of the pixels of 640 x 480 to 224 x 224, and in 13 % to 100 x 100;
#   5.0 equals Pillow everywhere. A mask that was resized by one version and a picture that was resized by the other no
#   longer fit at the edges. Sizes such as 320 x 240 and 341 x 256 do not show it. INTER_NEAREST is another rule
#   altogether, the same in both.
# What to do: resize masks with Pillow, or with one pinned OpenCV, and never compare across 5.0.
# Output: at the end. Exits with 1 if 4.12 equals Pillow, or if 5.0 does not.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q pillow==13.0.0 numpy==2.2.6
for version in 4.12.0.88 5.0.0.93; do
  "$place/venv/bin/pip" install -q --no-deps --target "$place/$version" "opencv-python-headless==$version"
done
cat > "$place/resize.py" <<'PY'
import cv2
import numpy as np
from PIL import Image

photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
for size in ((224, 224), (100, 100), (320, 240), (341, 256)):
    pillow = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.NEAREST))
    opencv = cv2.resize(photo, size, interpolation=cv2.INTER_NEAREST_EXACT)
    share = np.mean((opencv != pillow).any(-1))
    place = f"OpenCV {cv2.__version__:6}  640 x 480 to {size[0]} x {size[1]}"
    print(f"{place}: {share:5.1%} of the pixels are not Pillow's")
PY
old=$(PYTHONPATH="$place/4.12.0.88" "$place/venv/bin/python" "$place/resize.py")
new=$(PYTHONPATH="$place/5.0.0.93" "$place/venv/bin/python" "$place/resize.py")
printf '%s\n%s\n' "$old" "$new"
[ "$(grep -c ' 0.0%' <<< "$old")" = 2 ] && [ "$(grep -c ' 0.0%' <<< "$new")" = 4 ]
# OpenCV 4.12.0  640 x 480 to 224 x 224:  8.9% of the pixels are not Pillow's
# OpenCV 4.12.0  640 x 480 to 100 x 100: 12.6% of the pixels are not Pillow's
# OpenCV 4.12.0  640 x 480 to 320 x 240:  0.0% of the pixels are not Pillow's
# OpenCV 4.12.0  640 x 480 to 341 x 256:  0.0% of the pixels are not Pillow's
# OpenCV 5.0.0   640 x 480 to 224 x 224:  0.0% of the pixels are not Pillow's
# OpenCV 5.0.0   640 x 480 to 100 x 100:  0.0% of the pixels are not Pillow's
# OpenCV 5.0.0   640 x 480 to 320 x 240:  0.0% of the pixels are not Pillow's
# OpenCV 5.0.0   640 x 480 to 341 x 256:  0.0% of the pixels are not Pillow's
