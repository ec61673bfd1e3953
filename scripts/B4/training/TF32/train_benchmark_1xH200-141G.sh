#!/usr/bin/env bash
# EfficientNet-B4, TF32, 1x H200-141G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/TF32/H200-141G/train_benchmark "$@"
