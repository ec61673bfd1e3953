#!/usr/bin/env bash
# ResNet50, TF32, DGXH100: 250 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/TF32/H100-80G/convergence/250E "$@"
