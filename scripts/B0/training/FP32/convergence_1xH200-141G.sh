#!/usr/bin/env bash
# EfficientNet-B0, FP32, 1x H200-141G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b0/FP32/H200-141G/convergence/500E "$@"
