#!/usr/bin/env bash
# ResNet50, FP32, DGXH200: 50 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/FP32/H200-141G/convergence/50E "$@"
