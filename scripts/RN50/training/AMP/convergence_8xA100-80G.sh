#!/usr/bin/env bash
# ResNet50, AMP, 8x A100-80G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/AMP/DGXA100/convergence/90E "$@"
