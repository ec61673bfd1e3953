#!/usr/bin/env bash
# ResNet50, TF32, 1x A100-80G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 resnet50/TF32/DGXA100/evaluate "$@"
