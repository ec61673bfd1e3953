"""Measures what single parts of Convoy cost: saving, input operations, memory of thin images."""
