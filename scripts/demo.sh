#!/usr/bin/env bash
# The demo: real images → TFRecords → train EfficientNet-B0 → label a folder of JPEGs. Called by `make demo`.
#   DEMO_DIR=DIR   where it works (demo/ unless set)      extra flags go to the training command
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${DEMO_DIR:-demo}
python=.venv/bin/python
step() { printf '\n\033[1m%s\033[0m\n  %s\n' "$1" "$2"; }

rm -rf "$dir"
start=$SECONDS
step "1. Real images: 1,797 scans of handwritten digits, as JPEGs in TFRecords" \
     "python -m dataloader.prepare digits --out $dir/data --images $dir/images"
$python -m dataloader.prepare digits --out "$dir/data" --images "$dir/images"

step "2. Train EfficientNet-B0 from scratch, evaluating on the fifth that is held out" \
     "python main.py --config configs/digits_b0.yaml --data_dir $dir/data --model_dir $dir/model $*"
$python main.py --config configs/digits_b0.yaml --data_dir "$dir/data" --model_dir "$dir/model" "$@"

step "3. Label a folder of JPEGs that it has not seen" \
     "python main.py --mode predict --model_dir $dir/model --predict_dir $dir/images"
$python main.py --mode predict --model_dir "$dir/model" --predict_dir "$dir/images"

printf '\nDone in %d min %d s. The run is in %s/model: config.yaml, log.json, checkpoints/, predictions.csv\n' \
  $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$dir"
