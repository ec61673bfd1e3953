#!/usr/bin/env bash
# EfficientNet-B0, TF32: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b0/TF32/DGXA100/predict "$@"
