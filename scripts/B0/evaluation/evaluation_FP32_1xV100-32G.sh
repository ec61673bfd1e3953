#!/usr/bin/env bash
# EfficientNet-B0, FP32, 1x V100-32G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b0/FP32/DGX1V-32G/evaluate "$@"
