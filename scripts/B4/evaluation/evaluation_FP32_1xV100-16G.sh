#!/usr/bin/env bash
# EfficientNet-B4, FP32, 1x V100-16G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b4/FP32/DGX1V/evaluate "$@"
