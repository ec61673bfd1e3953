#!/usr/bin/env bash
# EfficientNet-B4, TF32, 1x H100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/TF32/H100-80G/train_benchmark "$@"
