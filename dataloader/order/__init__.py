"""Which example stands where in an epoch, and on which rank. NumPy only."""
