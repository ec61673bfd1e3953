#!/usr/bin/env bash
# EfficientNet-B4, AMP, 8x H100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 8 efficientnet-b4/AMP/H100-80G/convergence/500E "$@"
