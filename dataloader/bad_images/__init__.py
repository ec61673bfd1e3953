"""Handles images that cannot be decoded: finds them, says why, and replaces them."""
