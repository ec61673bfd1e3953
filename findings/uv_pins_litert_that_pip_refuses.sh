#!/usr/bin/env bash
# uv's pins of LiteRT for several Pythons are refused by pip from Python 3.11 on.
#
# Versions: ai-edge-litert 2.3.0, backports.strenum 1.3.1 and 1.2.8, uv 0.13.9, pip 26.3; Python 3.11 or newer, Linux x86-64.
# Most expect: what `uv pip compile --universal` writes for a range of Pythons can be installed by pip on each of them.
# Seen on 2026-12-03: ai-edge-litert requires backports.strenum on every Python, though only 3.10 and older need it. Its
#   newest release, 1.3.1, says Requires-Python <3.11. uv takes no notice of upper bounds there, and pins 1.3.1 for all;
#   pip takes notice, and finds no solution. Without the pin, pip takes the older 1.2.8, which has no such bound.
# What to do: bound it by hand (backports-strenum<1.3 ; python_full_version >= '3.11'), and ask pip about every pin.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip --disable-pip-version-check install -q pip==26.3 uv==0.13.9
echo ai-edge-litert==2.3.0 > wanted.in
venv/bin/uv pip compile -q --universal --python-version 3.10 --no-annotate --no-header --no-emit-index-url \
  --no-emit-find-links wanted.in -o pins.txt
echo "uv: $(grep strenum pins.txt)"
try() {
  venv/bin/pip --disable-pip-version-check install -q --dry-run --ignore-installed "$@" -r wanted.in >said.txt 2>&1 && echo accepted && return
  grep -q "ResolutionImpossible" said.txt && grep -q "backports.strenum" said.txt && echo "refused: ResolutionImpossible, backports-strenum"
}
with=$(try -c pins.txt); echo "pip with these pins: $with"
grep -v strenum pins.txt > others.txt
without=$(try -c others.txt); echo "pip without the pin: $without"
[ "$(grep strenum pins.txt)" = "backports-strenum==1.3.1" ] && [ "${with%%:*}" = refused ] && [ "$without" = accepted ]
# uv: backports-strenum==1.3.1
# pip with these pins: refused: ResolutionImpossible, backports-strenum
# pip without the pin: accepted
