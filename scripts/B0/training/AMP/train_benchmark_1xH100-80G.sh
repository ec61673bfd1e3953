#!/usr/bin/env bash
# EfficientNet-B0, AMP, 1x H100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b0/AMP/H100-80G/train_benchmark "$@"
