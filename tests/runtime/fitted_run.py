"""Makes a run that knows something without training: its classifier is fitted by least squares."""

import keras
import numpy as np

from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.builders.models import build_training_model, model_arguments
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.arrays import variables_to_arrays
from convoy.runtime.settings.config import Config, defaults


class FittedRun:
    """An untrained network, its features of some images, and a checkpoint for its classifier.

    Attributes:
        features: (count, features + 1); the last column is 1, for the bias.
        labels: int32 (count,).
    """

    def __init__(self, data_dir, split, count, names):
        """Reads the first `count` images of a split whose classes have these names."""
        given = {"data_dir": str(data_dir), "image_size": 32, "augmenter_name": "none"}
        self._config = Config(**(defaults("efficientnet-test") | given))
        self._names = list(names)
        self._model = build_training_model(self._config, len(self._names))
        batch = {"train_batch_size": count, "eval_batch_size": count}
        images, labels, _ = next(build_loader(self._config.with_(**batch), split).batches(0))
        self.labels = labels.numpy()
        below_head = keras.Model(self._model.input, self._model.layers[-1].input)
        self.features = np.c_[below_head(images).numpy(), np.ones(count)]

    def weights(self, head):
        """Returns the network's arrays by path with a classifier (features + 1, classes)."""
        self._model.layers[-1].kernel.assign(head[:-1])
        self._model.layers[-1].bias.assign(head[-1])
        return variables_to_arrays(self._model.weights)

    def save(self, model_dir, weights, ema=None):
        """Writes a checkpoint of the weights and of their moving average."""
        arguments = model_arguments(self._config, len(self._names))
        state = {"step": 1, "epoch": 1, "model": arguments, "class_names": self._names}
        saved = checkpoint.Checkpoint(weights, ema=ema or {}, state=state)
        saved.config = self._config.to_yaml()
        checkpoint.save(model_dir, saved)
