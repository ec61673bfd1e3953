"""Rejects what cannot work before anything slow begins. No TensorFlow."""
