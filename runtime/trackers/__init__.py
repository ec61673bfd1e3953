"""TensorBoard, Weights & Biases and MLflow (`--trackers`)."""
