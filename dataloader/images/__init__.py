"""Converts encoded bytes to pixels: decoders, orientation, crops, resizing."""
