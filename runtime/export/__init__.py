"""Implements `--mode export`: writes a trained model for other programs."""
