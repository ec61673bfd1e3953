"""Implements the contenders: Convoy and the other programs, each for one process."""
