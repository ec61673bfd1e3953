"""Builds the model and the loaders that a `Config` describes."""
