"""Decodes, crops and resizes images as evaluation does, without TensorFlow: the same pixels."""
