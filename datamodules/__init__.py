from datamodules.cifar10 import CIFAR10DataModule as CIFAR10DataModule
from datamodules.copy_task import CopyTaskDataModule as CopyTaskDataModule
from datamodules.edge_list import EdgeListDataModule as EdgeListDataModule
from datamodules.errors import DataError as DataError
from datamodules.logic import LogicalInferenceDataModule as LogicalInferenceDataModule
from datamodules.ptb import PTBDataModule as PTBDataModule
from datamodules.ske import SKEDataModule as SKEDataModule
