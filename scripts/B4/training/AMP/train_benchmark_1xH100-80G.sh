#!/usr/bin/env bash
# EfficientNet-B4, AMP, 1x H100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/AMP/H100-80G/train_benchmark "$@"
