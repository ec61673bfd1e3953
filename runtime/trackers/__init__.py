"""Sends figures to TensorBoard, Weights & Biases and MLflow (`--trackers`)."""
