#!/usr/bin/env bash
# ResNet50, FP32, 8x V100-32G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/FP32/DGX1V-32G/train_benchmark "$@"
