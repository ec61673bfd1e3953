"""Provides losses, optimizers, gradient clipping, learning-rate schedules and weight averages."""
