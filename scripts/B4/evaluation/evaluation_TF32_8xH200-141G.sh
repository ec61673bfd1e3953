#!/usr/bin/env bash
# EfficientNet-B4, TF32, 8x H200-141G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 efficientnet-b4/TF32/H200-141G/evaluate "$@"
