#!/usr/bin/env bash
# ResNet50, AMP, 1x H200-141G: 90 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 resnet50/AMP/H200-141G/convergence/90E "$@"
