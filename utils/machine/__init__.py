"""Describes this machine and sets up TensorFlow's use of it: GPUs, threads, memory, XLA."""
