#!/usr/bin/env bash
# EfficientNet-B0, AMP, 8x H200-141G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 efficientnet-b0/AMP/H200-141G/evaluate "$@"
