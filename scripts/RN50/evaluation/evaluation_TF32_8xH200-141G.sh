#!/usr/bin/env bash
# ResNet50, TF32, 8x H200-141G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/TF32/H200-141G/evaluate "$@"
