#!/usr/bin/env bash
# Fine-tuning: a network that has seen the digits 0 to 6 learns 7, 8 and 9 from 90 images, against one that starts
# from scratch with as many images, epochs and updates. Called by `make demo-finetune`. Exit code 1: it did not win.
#   SEEDS=5   how many seeds of head, order and crops      DEMO_DIR=DIR   where it works (demo-finetune/ unless set)
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${DEMO_DIR:-demo-finetune}
seeds=${SEEDS:-5}
case $seeds in ''|0*|*[!0-9]*) echo "SEEDS must be a number from 1, not '$seeds'" >&2; exit 2 ;; esac

title() { printf '\n\033[1m%s\033[0m\n' "$1"; }
# Runs `python …`, shown as it would be typed; what it prints goes to the file $log.
# shellcheck disable=SC2154  # log is set before each call
run() {
  printf '  python %s\n' "$*"
  .venv/bin/python "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "it failed; all it said is in $log" >&2; exit 1; }
}

if [ -e "$dir" ] && [ ! -e "$dir/prepare.txt" ]; then
  echo "$dir is there and not from an earlier demo-finetune: choose another DEMO_DIR" >&2; exit 2
fi
rm -rf "$dir"
mkdir -p "$dir"
start=$SECONDS
title "1. Data: all images of 0 to 6; 90 images of 7 to 9, and 320 to evaluate on"
log=$dir/prepare.txt run -m dataloader.prepare digits --classes 0-6 --out "$dir/many"
log=$dir/prepare_few.txt run -m dataloader.prepare digits --classes 7-9 --train_examples 90 \
  --validation_fraction 0.6 --out "$dir/few"

title "2. Pretrain on 0 to 6"
log=$dir/pretrained.txt run main.py --config configs/digits_b0.yaml --data_dir "$dir/many" \
  --max_epochs 4 --warmup_epochs 1 --moving_average_decay 0 --num_epochs_between_eval 4 \
  --model_dir "$dir/pretrained"

few=(main.py --config configs/digits_few.yaml --data_dir "$dir/few")
for seed in $(seq 0 $((seeds - 1))); do
  to=$dir/seed$seed
  mkdir "$to"
  title "Seed $seed: from scratch, 3 epochs; then a new head, 1 epoch, and the whole network, 2 epochs"
  log=$to/scratch.txt run "${few[@]}" --seed "$seed" --no_checkpoints --model_dir "$to/scratch"
  log=$to/frozen.txt run "${few[@]}" --seed "$seed" --pretrained_from_file "$dir/pretrained" \
    --freeze_backbone --max_epochs 1 --warmup_epochs 0 --lr_init 0.03 --model_dir "$to/frozen"
  grep -h 'new classifier' "$to/frozen.txt"
  log=$to/tuned.txt run "${few[@]}" --seed "$seed" --pretrained_from_file "$to/frozen" \
    --max_epochs 2 --warmup_epochs 0 --lr_init 0.003 --model_dir "$to/tuned"
done

title "Top-1 on 320 images of 7 to 9, after the last epoch"
code=0
.venv/bin/python scripts/finetune_table.py "$dir" || code=$?
printf 'Done in %d min %d s. The runs are in %s/.\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$dir"
exit $code
