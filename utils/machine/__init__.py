"""What this machine has, and how TensorFlow uses it: GPUs, threads, memory, XLA."""
