#!/usr/bin/env bash
# ResNet50, FP32, 8x V100-16G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/FP32/DGX1V/convergence/90E "$@"
