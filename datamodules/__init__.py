"""One LightningDataModule per kind of data, and the batches that they yield."""

from readers.errors import DataError as DataError

from .augmentation.images import Augmentation as Augmentation
from .augmentation.images import Blur as Blur
from .augmentation.images import ChannelMixing as ChannelMixing
from .augmentation.images import ColorJitter as ColorJitter
from .augmentation.images import Composed as Composed
from .augmentation.images import Crops as Crops
from .augmentation.images import Grey as Grey
from .augmentation.images import MirrorShift as MirrorShift
from .copy_task import CopyTaskDataModule as CopyTaskDataModule
from .edge_list import EdgeListDataModule as EdgeListDataModule
from .images import ImageDataModule as ImageDataModule
from .logic import LogicalInferenceDataModule as LogicalInferenceDataModule
from .text import TextDataModule as TextDataModule
from .triples import TripleDataModule as TripleDataModule
from .word_graph import WordVectorDataModule as WordVectorDataModule
