"""From a user's text to its parse trees, by an ON-LSTM language model."""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from metrics.trees import Tree, bracketed
from readers.files import read_text_lines


class ParsingModel(Protocol):
    """What is needed of a model: its vocabulary, where it is, and how it parses."""

    index: dict[str, int]

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    def lookup(self, word: str) -> int:
        """Index of a word as a user writes it."""

    def parse(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, list[list[Tree]]]:
        """Distances, and for each layer the trees of the sentences."""


def parse_text_file(model: ParsingModel, path: Path, output: Path, layer: int, batch_size: int) -> str:
    """Writes the bracketed tree of every line of a file, one a line.

    Args:
        model: the model, in evaluation mode.
        path: the file with the sentences.
        output: the file to write.
        layer: whose distances give the trees, from 1.
        batch_size: sentences read at once.

    Returns:
        what was done.

    Raises:
        ValueError: the file can't be read.
    """
    sentences = [line.split() for line in read_text_lines(path)]
    # Sentences of like length together: little padding.
    order = sorted((i for i, words in enumerate(sentences) if words), key=lambda i: len(sentences[i]))
    lines = [""] * len(sentences)
    end, unknown = model.index["<eos>"], 0
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        indices = [[model.lookup(word) for word in sentences[i]] for i in chunk]
        unknown += sum(row.count(model.index["<unk>"]) for row in indices)
        rows = [torch.tensor([end, *row, end]) for row in indices]
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in indices])
        _, trees = model.parse(inputs.to(model.device), lengths.to(model.device))
        for i, tree in zip(chunk, trees[layer - 1], strict=True):
            lines[i] = bracketed(tree, sentences[i])
    output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = sum(map(len, sentences))
    return f"{len(order)} sentences, {words} words ({unknown} not in the vocabulary), layer {layer} -> {output}"
