#!/usr/bin/env bash
# ResNet50, AMP, DGX2V: 90 epochs into the folder given
exec "$(dirname "$0")/../../launch.sh" 16 resnet50/AMP/DGX2V/convergence/90E "$@"
