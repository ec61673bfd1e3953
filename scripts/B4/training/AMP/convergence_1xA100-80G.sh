#!/usr/bin/env bash
# EfficientNet-B4, AMP, 1x A100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/AMP/DGXA100/convergence/500E "$@"
