"""Measures training on several processes, and predicts it for many GPUs."""
