"""Augments images on the host or the device: AutoAugment, RandAugment, jitter, erasing, MixUp,
CutMix.
"""
