#!/usr/bin/env bash
# EfficientNet-B4, AMP, 1x V100-32G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b4/AMP/DGX1V-32G/evaluate "$@"
