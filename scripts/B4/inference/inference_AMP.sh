#!/usr/bin/env bash
# EfficientNet-B4, AMP: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b4/AMP/DGXA100/predict "$@"
