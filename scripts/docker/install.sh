#!/usr/bin/env bash
# Installs Convoy beside the TensorFlow and Horovod that this Python has already, and touches neither: for
# NVIDIA's container (Dockerfile). Where there is no TensorFlow yet, scripts/setup.sh installs everything.
#   PYTHON=python3   whose packages
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}

there=$(mktemp) pins=$(mktemp)
trap 'rm -f "$there" "$pins"' EXIT
# What the image's TensorFlow was built and tested with stays as it is; Keras alone is replaced.
"$python" -m pip list --format=freeze --disable-pip-version-check |
  { grep -iE '^(tensorflow|tensorflow[-_]cpu|horovod|numpy|protobuf|ml[-_]dtypes|h5py|absl-py|nvidia[-_].*)==' || true; } > "$there"
grep -qiE '^tensorflow' "$there" || { echo "install: $python has no TensorFlow; scripts/setup.sh brings its own" >&2; exit 1; }
# The other pins are those for the nearest TensorFlow, but for what the image has in another version.
constraints=constraints.txt
grep -qiE '^tensorflow(-cpu|_cpu)?==2\.1[0-8]\.' "$there" && constraints="constraints-2.18.txt"
names=$(sed 's/==.*//; s/[-_]/[-_]/g' "$there" | paste -sd'|')
grep -viE "^($names)==" "$constraints" > "$pins"

# The image's own constraints (PIP_CONSTRAINT) hold Keras back.
packages=$("$python" -c '
try:
    import tomllib
except ImportError:
    import pip._vendor.tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["with-tensorflow"]))')
mapfile -t packages <<<"$packages"
pip() { PIP_CONSTRAINT='' "$python" -m pip install -q --no-cache-dir --disable-pip-version-check "$@"; }
pip -c "$there" -c "$pins" "${packages[@]}"
pip --no-deps --no-build-isolation -e .
PYTHON=$python scripts/build_native.sh || echo "install: the native operations did not build; TensorFlow's own are used" >&2
"$python" main.py --mode env
