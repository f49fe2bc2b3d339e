"""One LightningDataModule per kind of data, and the batches that they yield."""

from readers.errors import DataError as DataError

from .copy_task import CopyTaskDataModule as CopyTaskDataModule
from .edge_list import EdgeListDataModule as EdgeListDataModule
from .image_augmentation import Augmentation as Augmentation
from .image_augmentation import Blur as Blur
from .image_augmentation import ChannelMixing as ChannelMixing
from .image_augmentation import ColorJitter as ColorJitter
from .image_augmentation import Composed as Composed
from .image_augmentation import Crops as Crops
from .image_augmentation import Grey as Grey
from .image_augmentation import MirrorShift as MirrorShift
from .images import ImageDataModule as ImageDataModule
from .logic import LogicalInferenceDataModule as LogicalInferenceDataModule
from .text import TextDataModule as TextDataModule
from .triples import TripleDataModule as TripleDataModule
from .word_graph import WordVectorDataModule as WordVectorDataModule
