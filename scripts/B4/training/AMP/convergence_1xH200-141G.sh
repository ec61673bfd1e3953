#!/usr/bin/env bash
# EfficientNet-B4, AMP, 1x H200-141G: 500 epochs
exec "$(dirname "$0")/../../../launch.sh" 1 efficientnet-b4/AMP/H200-141G/convergence/500E "$@"
