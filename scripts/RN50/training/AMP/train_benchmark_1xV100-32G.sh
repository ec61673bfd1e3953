#!/usr/bin/env bash
# ResNet50, AMP, 1x V100-32G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/AMP/DGX1V-32G/train_benchmark "$@"
