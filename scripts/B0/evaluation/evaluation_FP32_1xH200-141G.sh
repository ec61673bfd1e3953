#!/usr/bin/env bash
# EfficientNet-B0, FP32, 1x H200-141G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b0/FP32/H200-141G/evaluate "$@"
