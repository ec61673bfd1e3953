#!/usr/bin/env bash
# ResNet50, TF32, 1x H100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/TF32/H100-80G/train_benchmark "$@"
