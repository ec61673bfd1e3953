#!/usr/bin/env bash
# Two of the packages that DALI requires bring the same file with other contents, and pip keeps the one it wrote last.
#
# Versions: nvidia-nvimgcodec-cu12 0.9.0.20 and nvidia-nvjpeg2k-cu12 0.11.0.51, which nvidia-dali-cuda120 2.4.0 takes;
#   pip 26.3; Python 3.11, Linux x86-64.
# Most expect: the files of an environment that pip has just made are those that the packages' RECORD files list, so
#   that a check of sizes or hashes finds a broken installation; or pip refuses two packages that bring the same file.
# Seen on 2026-12-03: both bring nvidia/__init__.py. nvimgcodec's has 750 bytes and makes `nvidia` a package that may
#   lie in several folders (pkgutil.extend_path); nvjpeg2k's is empty. pip and `pip check` say nothing. Which one is
#   there depends on the order of installation, and one of the two packages always looks damaged. Removing one of them
#   removes the file of the other.
# What to do: a check by RECORD must also accept the size or hash that another package's RECORD gives.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip --disable-pip-version-check -q "$@"; }
pip install pip==26.3
cat > "$place/look.py" <<'PY'
import os
import sys
from importlib import metadata

damaged = []
for name in ("nvidia-nvimgcodec-cu12", "nvidia-nvjpeg2k-cu12"):
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    (file,) = (file for file in package.files if str(file) == "nvidia/__init__.py")
    path = package.locate_file(file)
    there = os.path.getsize(path) if os.path.exists(path) else "no file"
    print(f"  {name}: RECORD says {file.size}, there is {there}")
    if there != file.size:
        damaged.append(name)
sys.exit(0 if damaged == sys.argv[1:] else 1)
PY
look() { "$place/venv/bin/python" "$place/look.py" "$@"; }
echo "nvimgcodec, then nvjpeg2k"
pip install --no-deps nvidia-nvimgcodec-cu12==0.9.0.20
pip install --no-deps nvidia-nvjpeg2k-cu12==0.11.0.51
pip check && look nvidia-nvimgcodec-cu12
echo "nvimgcodec again"
pip install --no-deps --force-reinstall nvidia-nvimgcodec-cu12==0.9.0.20
pip check && look nvidia-nvjpeg2k-cu12
echo "without nvjpeg2k"
pip uninstall -y nvidia-nvjpeg2k-cu12
pip check && look nvidia-nvimgcodec-cu12
# nvimgcodec, then nvjpeg2k
#   nvidia-nvimgcodec-cu12: RECORD says 750, there is 0
#   nvidia-nvjpeg2k-cu12: RECORD says 0, there is 0
# nvimgcodec again
#   nvidia-nvimgcodec-cu12: RECORD says 750, there is 750
#   nvidia-nvjpeg2k-cu12: RECORD says 0, there is 750
# without nvjpeg2k
#   nvidia-nvimgcodec-cu12: RECORD says 750, there is no file
