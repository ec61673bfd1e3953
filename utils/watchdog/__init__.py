"""Ends a job of several processes when one of them dies, freezes or gets stuck. No TensorFlow."""
