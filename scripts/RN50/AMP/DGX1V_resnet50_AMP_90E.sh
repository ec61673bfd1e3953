#!/usr/bin/env bash
# ResNet50, AMP, DGX1V: 90 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 8 resnet50/AMP/DGX1V/convergence/90E "$@"
