#!/usr/bin/env bash
# Compiles dataloader/native/ and model/native/ into TensorFlow libraries beside their sources, and
# dataloader/plain/native/ into one without TensorFlow; takes half a minute.
# `make setup` calls it; call it again after changing the C++. Nothing is done where nothing changed.
#   CXX=g++   the compiler; CXXFLAGS   more flags; PYTHON=.venv/bin/python   whose TensorFlow
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD exec "${PYTHON:-.venv/bin/python}" -m convoy.utils.native.compile
