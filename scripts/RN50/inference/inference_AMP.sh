#!/usr/bin/env bash
# ResNet50, AMP: label the images in INFER_DIR
exec "$(dirname "$0")/../../launch.sh" 1 resnet50/AMP/DGXA100/predict "$@"
