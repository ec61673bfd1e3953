#!/usr/bin/env bash
# ResNet50, TF32: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 resnet50/TF32/DGXA100/predict "$@"
