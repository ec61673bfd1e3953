#!/usr/bin/env bash
# ResNet50, TF32, 8x A100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/TF32/DGXA100/train_benchmark "$@"
