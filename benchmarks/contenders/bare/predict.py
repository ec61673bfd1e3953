"""Labels images with keras.applications, as a user's first script does.

rows/starts.py compares its start-up time and memory with Convoy's.

    python benchmarks/contenders/bare/predict.py WEIGHTS.weights.h5 IMAGE_OR_FOLDER
"""

import sys
from pathlib import Path

import keras
import numpy as np

SIZE, BATCH = (224, 224), 32

weights, place = sys.argv[1], Path(sys.argv[2])
model = keras.applications.EfficientNetB0(weights=None, classes=16)
model.load_weights(weights)

if place.is_dir():
    files = sorted(place.iterdir())
    images = keras.utils.image_dataset_from_directory(
        place, labels=None, image_size=SIZE, batch_size=BATCH, shuffle=False, verbose=False
    )
else:
    files = [place]
    images = np.array(keras.utils.load_img(place, target_size=SIZE))[None]

for file, probabilities in zip(files, model.predict(images, verbose=0), strict=True):
    best = np.argsort(-probabilities)[:5]
    print(file, *(f"{i} {probabilities[i]:.4f}" for i in best))
