"""Trains as Keras' guides teach: image folders, EfficientNetB0, `fit`.

    python -m benchmarks.first_run.keras_script DIR SIZE EPOCHS SEED

The last line of output is {"top1": …, "epochs": …}.
"""

import json
import sys

import keras

folder, size, epochs, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
keras.utils.set_random_seed(seed)
train, val = (
    keras.utils.image_dataset_from_directory(
        f"{folder}/{split}", label_mode="categorical", image_size=(size, size), seed=seed
    )
    for split in ("train", "val")
)
classes = len(train.class_names)
model = keras.applications.EfficientNetB0(
    weights=None, classes=classes, input_shape=(size, size, 3)
)
model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
history = model.fit(train, validation_data=val, epochs=epochs, verbose=2)
print(json.dumps({"top1": 100 * max(history.history["val_accuracy"]), "epochs": epochs}))
