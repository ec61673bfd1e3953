"""From a `Config` to the model and the loaders that it describes."""
