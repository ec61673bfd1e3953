"""AutoAugment, RandAugment, jitter, random erasing, MixUp and CutMix, on the host or the device."""
