#!/usr/bin/env bash
# EfficientNet-B4, AMP, 8x H100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b4/AMP/H100-80G/train_benchmark "$@"
