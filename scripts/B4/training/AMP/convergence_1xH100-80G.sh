#!/usr/bin/env bash
# EfficientNet-B4, AMP, 1x H100-80G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/AMP/H100-80G/convergence/500E "$@"
