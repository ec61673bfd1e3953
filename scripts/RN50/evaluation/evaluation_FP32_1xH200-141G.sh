#!/usr/bin/env bash
# ResNet50, FP32, 1x H200-141G: evaluation of the best checkpoint in MODEL_DIR
exec "$(dirname "$0")/../../launch.sh" 1 resnet50/FP32/H200-141G/evaluate "$@"
