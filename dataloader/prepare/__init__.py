"""Prepares data sets: `python -m dataloader.prepare COMMAND`, see `--help`. Needs no TensorFlow."""
