#!/usr/bin/env bash
# Writes constraints.txt and constraints-2.18.txt: the newest versions that go together, for each supported Python.
# Run it to move to newer packages, then run all test suites. It needs uv, which it takes from the package registry.
#   KEEP=yes   keep the present pins where they still fit, after a change of pyproject.toml
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d); trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools" && "$tools/bin/pip" install -qq --disable-pip-version-check uv

# What scripts/setup.sh installs besides pyproject.toml's packages.
cat > "$tools/more.in" <<'IN'
cloudpickle
cmake
horovod==0.28.1
nvidia-cuda-cccl-cu12
packaging
pip
psutil
setuptools
wheel
IN

# uv takes no notice of the newest Python that a package allows; pip does, and refuses these.
cat > "$tools/only.in" <<'IN'
backports-strenum<1.3 ; python_full_version >= '3.11'
IN

pin() {  # FILE, the first Python that is too new, what the file is for, requirements…
  local file=$1 below=$2 purpose=$3; shift 3
  printf '%s\n' "$@" > "$tools/these.in"
  { cat pyproject.toml; printf "[tool.uv]\nenvironments = [\"sys_platform == 'linux' and python_version < '%s'\"]\n" "$below"; } > "$tools/pyproject.toml"
  rm -f "$tools/pins.txt"
  if [ "${KEEP:-no}" = yes ] && [ -f "$file" ]; then grep -v '^#' "$file" > "$tools/pins.txt"; fi
  (cd "$tools" && bin/uv pip compile -q --universal --python-version 3.10 --all-extras --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links -c only.in pyproject.toml more.in these.in -o pins.txt)
  # The environment needs no mention: there is no other.
  { printf '# %s\n# Written by scripts/pin_versions.sh, for every package that a target of the Makefile installs.\n' "$purpose"
    sed -E "s/ (and|;) sys_platform == 'linux'\$//; s/ (and|;) python_full_version < '$below(\.[0-9]+)?'\$//" "$tools/pins.txt"; } > "$tools/done.txt"
  mv "$tools/done.txt" "$file"
}

# Asks pip whether it takes every pin: some minutes, because it reads each package's description.
check() {  # FILE, Pythons…
  local file=$1 version; shift
  grep -v '^horovod==' "$file" > "$tools/these.txt"  # it has no wheel, and scripts/setup.sh builds it
  for version in "$@"; do
    "python$version" -m venv "$tools/python$version" 2>/dev/null || { echo "pin_versions: no Python $version here to check $file with" >&2; continue; }
    "$tools/python$version/bin/pip" install -qq --disable-pip-version-check --dry-run --no-deps --ignore-installed -r "$tools/these.txt" ||
      { echo "pin_versions: Python $version cannot take a pin of $file (above)" >&2; exit 1; }
  done
}

pin constraints.txt 3.14 "Versions for TensorFlow 2.21, Python 3.10 to 3.13." tensorflow==2.21.0 tensorflow-cpu==2.21.0
pin constraints-2.18.txt 3.13 "Versions for TensorFlow 2.18 (TENSORFLOW=2.18 make setup), Python 3.10 to 3.12." tensorflow==2.18.1 tensorflow-cpu==2.18.1
check constraints.txt 3.10 3.11 3.12 3.13
check constraints-2.18.txt 3.10 3.11 3.12
