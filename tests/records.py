"""Examples and TFRecord files as TensorFlow writes them, not our own encoder."""


def example(features):
    """Serializes a dictionary of bytes, floats and ints, or lists of ints, as tf.train.Example."""
    import tensorflow as tf

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        values = value if isinstance(value, list) else [value]
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    made = tf.train.Features(feature={key: feature(value) for key, value in features.items()})
    return tf.train.Example(features=made).SerializeToString()


def write(path, payloads):
    """Writes serialized examples to a TFRecord file; returns its path as a string."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
    return str(path)
