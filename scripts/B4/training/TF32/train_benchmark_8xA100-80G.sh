#!/usr/bin/env bash
# EfficientNet-B4, TF32, 8x A100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b4/TF32/DGXA100/train_benchmark "$@"
