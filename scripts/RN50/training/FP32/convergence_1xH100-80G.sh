#!/usr/bin/env bash
# ResNet50, FP32, 1x H100-80G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/FP32/H100-80G/convergence/90E "$@"
