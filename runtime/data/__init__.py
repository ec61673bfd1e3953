"""The data that the flags name, and how their classes meet those of a model."""
