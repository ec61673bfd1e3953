#!/usr/bin/env bash
# ResNet50, AMP, 1x A100-80G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/AMP/DGXA100/train_benchmark "$@"
