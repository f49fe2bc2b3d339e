"""Parse trees of the sentences of a text file."""

import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from metrics.trees import Tree, bracketed
from readers.files import read_text_lines


def parse_text_file(
    path: Path,
    output: Path,
    index: Mapping[str, int],
    parse: Callable[[Tensor, Tensor], list[Tree]],
    batch_size: int,
) -> tuple[int, int, int]:
    """Writes the bracketed tree of every sentence, one per line; empty lines stay empty.

    Args:
        path: a text file, one sentence per line, words separated by white space.
        output: the file to write.
        index: of each word in the vocabulary, ``<eos>`` and ``<unk>`` among them.
        parse: the trees of a batch, called with tokens (B, T) int64 (``<eos> w_1 ... w_n <eos>`` and padding) and the
            numbers n of words (B,) int64.
        batch_size: sentences per batch.

    Returns:
        Numbers of sentences, of words, and of words that are not in the vocabulary.

    Raises:
        ValueError: the file can't be read.
    """
    sentences = [line.split() for line in read_text_lines(path)]
    # Batches of sentences of similar length need little padding.
    order = sorted((i for i, words in enumerate(sentences) if words), key=lambda i: len(sentences[i]))
    lines = [""] * len(sentences)
    end, unknown = index["<eos>"], 0
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        indices = [[lookup(word, index) for word in sentences[i]] for i in chunk]
        unknown += sum(row.count(index["<unk>"]) for row in indices)
        rows = [torch.tensor([end, *row, end]) for row in indices]
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        trees = parse(inputs, torch.tensor([len(row) for row in indices]))
        for i, tree in zip(chunk, trees, strict=True):
            lines[i] = bracketed(tree, sentences[i])
    output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(order), sum(map(len, sentences)), unknown


def lookup(word: str, index: Mapping[str, int]) -> int:
    """Index of a word as users write it: tried as written, in lower case, without surrounding punctuation, and as ``N``
    if it is a number; else that of ``<unk>``."""
    lower = word.lower()
    bare = lower.strip(string.punctuation)
    number = "N" if re.fullmatch(r"[0-9]+([.,:/-][0-9]+)*", bare) else bare
    return next((index[form] for form in (word, lower, bare, number) if form in index), index["<unk>"])
