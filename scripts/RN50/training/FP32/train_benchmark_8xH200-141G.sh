#!/usr/bin/env bash
# ResNet50, FP32, 8x H200-141G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/FP32/H200-141G/train_benchmark "$@"
