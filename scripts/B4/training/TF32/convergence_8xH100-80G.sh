#!/usr/bin/env bash
# EfficientNet-B4, TF32, 8x H100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b4/TF32/H100-80G/convergence/500E "$@"
