"""Trains a network with `compile` and `fit`, as a user's first script does.

rows/starts.py compares its start-up time and memory with Convoy's.

    python benchmarks/contenders/bare/train.py FOLDER STEPS BATCH [NETWORK SIZE]

FOLDER has a folder for each class. NETWORK is a name in keras.applications, EfficientNetB0 without
it, and SIZE the images' height and width in pixels, then 224.
"""

import sys

import keras

folder, steps, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
network, size = sys.argv[4:6] or ("EfficientNetB0", 224)
data = keras.utils.image_dataset_from_directory(
    folder, image_size=(int(size), int(size)), batch_size=batch, verbose=False
)
model = getattr(keras.applications, network)(
    weights=None, classes=len(data.class_names), input_shape=(int(size), int(size), 3)
)
model.compile(
    keras.optimizers.SGD(0.01, momentum=0.9),
    keras.losses.SparseCategoricalCrossentropy(),
    metrics=["accuracy"],
)
model.fit(data.repeat(), steps_per_epoch=steps, epochs=1)
