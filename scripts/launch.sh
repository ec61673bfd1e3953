#!/usr/bin/env bash
# What all scripts in B0/, B4/ and RN50/ do: launch.sh PROCESSES RECIPE [OUTPUT_DIR] [FLAG …]
#   NPROC=2           start so many processes instead (docs/recipes.md says what becomes of the batch)
#   DATA_DIR=/data    MODEL_DIR=output    INFER_DIR=/infer_data    what these are unless set
#   PYTHON=python3    which interpreter; unless set, .venv's if there is one
#   DRY_RUN=1         print the command and do nothing
# Flags come last and win. Relative folders are those of where you are.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }

root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
nproc=${NPROC:-$1} recipe=$2
shift 2
case $nproc in ''|0*|*[!0-9]*) echo "NPROC must be a number from 1, not '$nproc'" >&2; exit 2 ;; esac
model_dir=${MODEL_DIR:-output}
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then model_dir=$1; shift; fi
case $recipe in */train_benchmark*) model_dir+=/benchmark ;; esac  # it would replace the run's log.json

command=("${PYTHON:-$python}" "$root/main.py" --recipe "$recipe" --model_dir "$model_dir")
[ "$nproc" = 1 ] || command+=(--nproc "$nproc")
case $recipe in
  */predict*) command+=(--predict_dir "${INFER_DIR:-/infer_data}") ;;
  */convergence*) command+=(--data_dir "${DATA_DIR:-/data}" --resume_checkpoint) ;;  # empty: starts
  *) command+=(--data_dir "${DATA_DIR:-/data}") ;;
esac
command+=("$@")
if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "${command[@]}"; echo; exit 0; fi
exec "${command[@]}"
