"""Prepares data sets: `python -m convoy.dataloader.prepare COMMAND`. Needs no TensorFlow."""
