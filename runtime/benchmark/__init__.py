"""Implements `--mode training_benchmark` and `inference_benchmark`."""
