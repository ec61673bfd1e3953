"""Finds the data in a folder, and reads the raw bytes of any example."""
