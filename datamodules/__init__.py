"""One LightningDataModule per kind of data, and the batches that they yield."""

from readers.errors import DataError as DataError

from .copy_task import CopyTaskDataModule as CopyTaskDataModule
from .edge_list import EdgeListDataModule as EdgeListDataModule
from .images import ImageDataModule as ImageDataModule
from .logic import LogicalInferenceDataModule as LogicalInferenceDataModule
from .text import TextDataModule as TextDataModule
from .triples import TripleDataModule as TripleDataModule
from .word_graph import WordVectorDataModule as WordVectorDataModule
