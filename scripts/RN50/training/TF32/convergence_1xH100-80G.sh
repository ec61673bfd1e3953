#!/usr/bin/env bash
# ResNet50, TF32, 1x H100-80G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/TF32/H100-80G/convergence/90E "$@"
