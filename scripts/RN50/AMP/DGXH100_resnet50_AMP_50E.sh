#!/usr/bin/env bash
# ResNet50, AMP, DGXH100: 50 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/AMP/H100-80G/convergence/50E "$@"
