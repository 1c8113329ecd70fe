"""Data sets: the embedded demo set of digit scenes."""

from .digit_scenes import DigitScenesDataset, make_digit_scenes

__all__ = ['DigitScenesDataset', 'make_digit_scenes']
