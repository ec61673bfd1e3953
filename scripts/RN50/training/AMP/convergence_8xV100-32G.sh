#!/usr/bin/env bash
# ResNet50, AMP, 8x V100-32G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/AMP/DGX1V-32G/convergence/90E "$@"
