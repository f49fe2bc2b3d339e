"""Parse trees of the sentences of a text file."""

import re
import string
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from metrics.trees import Tree, bracketed

ParseBatchFunction = Callable[[Tensor, Tensor], list[Tree]]


class SentenceParser:
    """Sentences as users write them to bracketed trees.

    Args:
        index: of each word in the vocabulary, ``<eos>`` and ``<unk>`` among them.
        parse: the trees of a batch, called with tokens (B, T) int64 (``<eos> w_1 ... w_n <eos>`` and padding) and the
            numbers n of words (B,) int64.

    Attributes:
        sentences: how many were parsed.
        words: how many words they had.
        unknown: how many of these are not in the vocabulary.
    """

    def __init__(self, index: Mapping[str, int], parse: ParseBatchFunction) -> None:
        self.index, self.parse = index, parse
        self.sentences = self.words = self.unknown = 0

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[str]:
        """The bracketed tree of each sentence of one word or more."""
        end, unknown = self.index["<eos>"], self.index["<unk>"]
        indices = [[lookup(word, self.index) for word in words] for words in sentences]
        self.sentences += len(sentences)
        self.words += sum(map(len, indices))
        self.unknown += sum(row.count(unknown) for row in indices)
        rows = [torch.tensor([end, *row, end]) for row in indices]
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        trees = self.parse(inputs, torch.tensor([len(row) for row in indices]))
        return [bracketed(tree, words) for tree, words in zip(trees, sentences, strict=True)]


def lookup(word: str, index: Mapping[str, int]) -> int:
    """Index of a word as users write it: tried as written, in lower case, without surrounding punctuation, and as ``N``
    if it is a number; else that of ``<unk>``."""
    lower = word.lower()
    bare = lower.strip(string.punctuation)
    number = "N" if re.fullmatch(r"[0-9]+([.,:/-][0-9]+)*", bare) else bare
    return next((index[form] for form in (word, lower, bare, number) if form in index), index["<unk>"])
