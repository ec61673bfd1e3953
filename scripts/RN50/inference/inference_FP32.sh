#!/usr/bin/env bash
# ResNet50, FP32: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 resnet50/FP32/DGXA100/predict "$@"
