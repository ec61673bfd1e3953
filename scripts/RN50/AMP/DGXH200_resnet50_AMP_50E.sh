#!/usr/bin/env bash
# ResNet50, AMP, DGXH200: 50 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/AMP/H200-141G/convergence/50E "$@"
