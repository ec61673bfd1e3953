#!/usr/bin/env bash
# EfficientNet-B0, FP32, 1x H100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b0/FP32/H100-80G/convergence/500E "$@"
