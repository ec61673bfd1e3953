#!/usr/bin/env bash
# ResNet50, FP32, DGX1V: 90 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/FP32/DGX1V/convergence/90E "$@"
