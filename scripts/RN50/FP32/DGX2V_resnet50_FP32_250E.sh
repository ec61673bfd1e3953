#!/usr/bin/env bash
# ResNet50, FP32, DGX2V: 250 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 16 resnet50/FP32/DGX2V/convergence/250E "$@"
