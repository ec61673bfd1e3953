#!/usr/bin/env bash
# ResNet50, FP32, DGXH100: 90 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/FP32/H100-80G/convergence/90E "$@"
