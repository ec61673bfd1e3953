#!/usr/bin/env bash
# EfficientNet-B4, FP32, 8x A100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b4/FP32/DGXA100/convergence/500E "$@"
