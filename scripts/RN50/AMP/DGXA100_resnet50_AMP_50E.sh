#!/usr/bin/env bash
# ResNet50, AMP, DGXA100: 50 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/AMP/DGXA100/convergence/50E "$@"
