#!/usr/bin/env bash
# EfficientNet-B0, FP32, 8x H100-80G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 efficientnet-b0/FP32/H100-80G/evaluate "$@"
