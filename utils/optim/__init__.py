"""What training optimizes with: losses, optimizers, clipping, learning-rate schedules, averages."""
