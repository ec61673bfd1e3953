#!/usr/bin/env bash
# EfficientNet-B4, AMP, 8x A100-80G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 efficientnet-b4/AMP/DGXA100/evaluate "$@"
