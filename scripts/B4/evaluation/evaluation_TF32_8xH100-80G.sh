#!/usr/bin/env bash
# EfficientNet-B4, TF32, 8x H100-80G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 efficientnet-b4/TF32/H100-80G/evaluate "$@"
