#!/usr/bin/env bash
# EfficientNet-B0, FP32, 1x V100-32G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b0/FP32/DGX1V-32G/convergence/500E "$@"
