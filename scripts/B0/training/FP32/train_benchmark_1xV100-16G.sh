#!/usr/bin/env bash
# EfficientNet-B0, FP32, 1x V100-16G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b0/FP32/DGX1V/train_benchmark "$@"
