#!/usr/bin/env bash
# ResNet50, TF32, DGXA100: 90 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/TF32/DGXA100/convergence/90E "$@"
