#!/usr/bin/env bash
# ResNet50, TF32, 1x A100-80G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/TF32/DGXA100/convergence/90E "$@"
