#!/usr/bin/env bash
# ResNet50, AMP, 1x V100-16G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 resnet50/AMP/DGX1V/evaluate "$@"
