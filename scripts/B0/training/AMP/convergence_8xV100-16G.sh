#!/usr/bin/env bash
# EfficientNet-B0, AMP, 8x V100-16G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b0/AMP/DGX1V/convergence/500E "$@"
