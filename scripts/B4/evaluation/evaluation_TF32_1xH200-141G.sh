#!/usr/bin/env bash
# EfficientNet-B4, TF32, 1x H200-141G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b4/TF32/H200-141G/evaluate "$@"
