"""Implements `--mode train`, `train_and_eval` and `lr_find`."""
