#!/usr/bin/env bash
# ResNet50, AMP, 1x H200-141G: training throughput, 500 steps
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/AMP/H200-141G/train_benchmark "$@"
