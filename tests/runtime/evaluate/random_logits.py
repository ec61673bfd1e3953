"""Random logits as examples of an evaluation."""

import numpy as np

EXAMPLES, CLASSES = 101, 11  # a prime number of examples, so that the last batch is padded


def random_logits():
    """Returns float32 logits, (EXAMPLES, CLASSES), and int32 labels, (EXAMPLES,)."""
    rng = np.random.default_rng(5)
    logits = (3 * rng.normal(size=(EXAMPLES, CLASSES))).astype(np.float32)
    return logits, rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
