"""Declares the flags, and reads and writes the files that hold their values."""
