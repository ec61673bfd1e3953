#!/usr/bin/env bash
# EfficientNet-B4, AMP, 1x V100-16G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/AMP/DGX1V/convergence/500E "$@"
