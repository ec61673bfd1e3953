#!/usr/bin/env bash
# ResNet50, TF32, 8x H100-80G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/TF32/H100-80G/convergence/90E "$@"
