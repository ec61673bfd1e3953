#!/usr/bin/env bash
# EfficientNet-B0, AMP: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b0/AMP/DGXA100/predict "$@"
