#!/usr/bin/env bash
# EfficientNet-B0, AMP, 8x H100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b0/AMP/H100-80G/convergence/500E "$@"
