"""Augments images on the host or the device.

It has AutoAugment, RandAugment, TrivialAugment, jitter, erasing, MixUp and CutMix.
"""
