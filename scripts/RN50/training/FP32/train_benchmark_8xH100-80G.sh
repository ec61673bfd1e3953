#!/usr/bin/env bash
# ResNet50, FP32, 8x H100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/FP32/H100-80G/train_benchmark "$@"
