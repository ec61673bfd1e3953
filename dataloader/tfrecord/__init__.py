"""The bytes of TFRecord files: framing, checksums, `tf.train.Example`. No TensorFlow."""
