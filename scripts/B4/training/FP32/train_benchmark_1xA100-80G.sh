#!/usr/bin/env bash
# EfficientNet-B4, FP32, 1x A100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/FP32/DGXA100/train_benchmark "$@"
