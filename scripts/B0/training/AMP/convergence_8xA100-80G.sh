#!/usr/bin/env bash
# EfficientNet-B0, AMP, 8x A100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b0/AMP/DGXA100/convergence/500E "$@"
