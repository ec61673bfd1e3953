"""Trains EfficientNet-B0 with `compile` and `fit`, as a user's first script does.

rows/starts.py compares its start-up time and memory with Convoy's.

    python benchmarks/contenders/bare/train.py FOLDER STEPS BATCH

FOLDER has a folder for each class.
"""

import sys

import keras

folder, steps, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = keras.utils.image_dataset_from_directory(
    folder, image_size=(224, 224), batch_size=batch, verbose=False
)
model = keras.applications.EfficientNetB0(weights=None, classes=len(data.class_names))
model.compile(
    keras.optimizers.SGD(0.01, momentum=0.9),
    keras.losses.SparseCategoricalCrossentropy(),
    metrics=["accuracy"],
)
model.fit(data.repeat(), steps_per_epoch=steps, epochs=1)
