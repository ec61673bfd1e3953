#!/usr/bin/env bash
# EfficientNet-B0, FP32, 8x H200-141G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b0/FP32/H200-141G/train_benchmark "$@"
