#!/usr/bin/env bash
# EfficientNet-B4, AMP, 8x V100-32G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b4/AMP/DGX1V-32G/convergence/500E "$@"
