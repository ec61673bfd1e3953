"""Opens the data of the flags, and matches their classes with a model's."""
