#!/usr/bin/env bash
# ResNet50, TF32, DGXH200: 90 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/TF32/H200-141G/convergence/90E "$@"
