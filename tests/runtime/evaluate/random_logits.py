"""Random logits as examples of an evaluation, and the names of its metrics."""

import numpy as np

EXAMPLES, CLASSES = 101, 11  # a prime number of examples, so that the last batch is padded
METRICS = (
    *("eval_loss", "eval_accuracy_top_1", "eval_accuracy_top_5"),
    *("eval_macro_recall", "eval_macro_f1"),
)


def random_logits():
    """Returns float32 logits, (EXAMPLES, CLASSES), and int32 labels, (EXAMPLES,)."""
    rng = np.random.default_rng(5)
    logits = (3 * rng.normal(size=(EXAMPLES, CLASSES))).astype(np.float32)
    return logits, rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
