#!/usr/bin/env bash
# EfficientNet-B0, AMP, 1x V100-32G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b0/AMP/DGX1V-32G/train_benchmark "$@"
