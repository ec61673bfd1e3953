#!/usr/bin/env bash
# ResNet50, AMP, 8x A100-80G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/AMP/DGXA100/evaluate "$@"
