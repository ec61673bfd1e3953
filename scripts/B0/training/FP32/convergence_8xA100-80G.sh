#!/usr/bin/env bash
# EfficientNet-B0, FP32, 8x A100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b0/FP32/DGXA100/convergence/500E "$@"
