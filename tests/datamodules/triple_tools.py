"""Shared by the tests of triple files and batches: a few sentences as a file, rows as plain values."""

import json

import pytest
import torch

from datamodules import TripleDataModule
from datamodules.batches import TripleBatch
from tests.conftest import SHARED

SKE = SHARED / "ske"
needs_ske = pytest.mark.skipif(not SKE.is_dir(), reason="no copy of SKE at hand")

SENTENCES = [
    ("《红楼梦》的作者是曹雪芹", [("红楼梦", "作者", "曹雪芹")]),
    ("曹雪芹写了《红楼梦》", [("红楼梦", "作者", "曹雪芹")]),
    ("张三出生于北京，妻子是李四", [("张三", "出生地", "北京"), ("张三", "妻子", "李四")]),
    ("李四和张三住在上海", [("张三", "妻子", "李四")]),
    ("无关的句子", []),
    ("《Ab》由王五执导", [("ab", "导演", "王五")]),
]


def line(text, triples):
    rows = [{"subject": s, "predicate": p, "object": o, "subject_type": "?", "object_type": "?"} for s, p, o in triples]
    return json.dumps({"text": text, "spo_list": rows, "postag": []}, ensure_ascii=False)


def write(path, sentences=SENTENCES):
    path.write_text("".join(line(*sentence) + "\n" for sentence in sentences), encoding="utf-8")
    return path


def module(source, **options):
    return TripleDataModule(str(source), **({"batch_size": 2, "eval_batch_size": 4, "min_count": 1} | options))


def assert_equal(left, right):
    for name, a, b in zip(TripleBatch._fields, left, right, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def rows_of(batch):
    """Each row of a batch as plain values."""
    parts = []
    for row in range(len(batch.characters)):
        own = [
            sorted(tuple(line[1:]) for line in getattr(batch, name).tolist() if line[0] == row)
            for name in ("subjects", "objects", "candidates")
        ]
        text = batch.texts[int(batch.sentences[row])]
        parts.append((text, int(batch.offsets[row]), tuple(batch.spans[row].tolist()), *own))
    return parts
