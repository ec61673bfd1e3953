#!/usr/bin/env bash
# ResNet50, FP32, DGXA100: 250 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/FP32/DGXA100/convergence/250E "$@"
