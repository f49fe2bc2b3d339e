"""Random changes of training data that leave its labels as they are."""

from .images import Augmentation, Blur, ChannelMixing, ColorJitter, Composed, Crops, Grey, MirrorShift

__all__ = ["Augmentation", "Blur", "ChannelMixing", "ColorJitter", "Composed", "Crops", "Grey", "MirrorShift"]
