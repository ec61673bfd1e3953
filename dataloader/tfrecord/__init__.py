"""Reads and writes the bytes of TFRecord files: framing, checksums, `tf.train.Example`.

No TensorFlow.
"""
