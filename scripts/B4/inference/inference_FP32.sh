#!/usr/bin/env bash
# EfficientNet-B4, FP32: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 efficientnet-b4/FP32/DGXA100/predict "$@"
