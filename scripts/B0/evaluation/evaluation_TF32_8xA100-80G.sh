#!/usr/bin/env bash
# EfficientNet-B0, TF32, 8x A100-80G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 efficientnet-b0/TF32/DGXA100/evaluate "$@"
