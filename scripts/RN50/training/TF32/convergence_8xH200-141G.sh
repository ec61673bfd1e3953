#!/usr/bin/env bash
# ResNet50, TF32, 8x H200-141G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 resnet50/TF32/H200-141G/convergence/90E "$@"
