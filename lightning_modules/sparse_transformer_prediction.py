"""From a user's file to what a Sparse Transformer makes of it: texts that go on, images that are completed."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.batches import ImageBatch
from layers.transformers import Positions
from layers.transformers.positions import COLOURS, bytes_of_images
from readers.files import read_text_lines
from readers.images import read_image_files

EOS, UNKNOWN = "<eos>", "<unk>"
SHOWN_CHARACTERS = 40  # of a wrong word in a message
GAP = 2  # white pixels between the images of a picture
MAX_DIGITS = 18  # of a token's number: Python refuses to read thousands of them
SHOWN_SIDE = 96  # smaller images are enlarged up to this many pixels


class WritingModel(Protocol):
    """What is needed of a model: its hyperparameters, where it is, and how it goes on with what it is given."""

    hparams: Any

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def positions(self) -> Positions | None:
        """Its learned positions, if it has such."""

    def generate(self, prompts: Tensor, count: int, *, lengths: Tensor | None = None, **options: Any) -> Tensor:
        """The prompts with ``count`` more tokens each."""

    def complete_images(self, images: Tensor, **options: Any) -> Tensor:
        """Images whose lower half is drawn anew."""


class PromptCodec:
    """Lines of a file to tokens, and tokens to what is written behind a line.

    Args:
        vocabulary: the tokens; empty where they are numbers.
        level: ``word`` or ``character``.
        vocab_size: how many numbers there are.
    """

    def __init__(self, vocabulary: list[str], level: str, vocab_size: int) -> None:
        self.vocabulary = vocabulary
        self.vocab_size = vocab_size
        self.separator = "" if vocabulary and level == "character" else " "
        self.index = {token: number for number, token in enumerate(vocabulary)}

    def encode(self, line: str, where: str) -> list[int]:
        """The tokens of a line: of a text behind ``<eos>``, so that the line is the beginning of one.

        Args:
            line: the line.
            where: what to call it in a message.

        Raises:
            ValueError: where tokens are numbers, on anything else, or an empty line.
        """
        if self.vocabulary:
            tokens = line if self.separator == "" else line.split()
            return [self.index[EOS], *(self.index.get(token, self.index[UNKNOWN]) for token in tokens)]
        words = line.split()
        wrong = next((word for word in words if not self._is_token(word)), None)
        if wrong is not None or not words:
            what = "is empty" if wrong is None else f"has {wrong[:SHOWN_CHARACTERS]!r}"
            raise ValueError(f"{where} {what}: write tokens as numbers from 0 to {self.vocab_size - 1}")
        return [int(word) for word in words]

    def _is_token(self, word: str) -> bool:
        return word.isdecimal() and len(word) <= MAX_DIGITS and int(word) < self.vocab_size

    def decode(self, tokens: list[int]) -> str:
        """What is written for the tokens, with what parts them from the line before."""
        names = [self.vocabulary[token] if self.vocabulary else str(token) for token in tokens]
        return self.separator + self.separator.join(names)


def continue_text_file(
    model: WritingModel, path: Path, output: Path, length: int, batch_size: int, options: dict[str, Any]
) -> str:
    """Writes every line of a file with ``length`` more tokens.

    Args:
        model: the model, in evaluation mode.
        path: the file with the prompts.
        output: the file to write.
        length: tokens to add to each line.
        batch_size: lines at once.
        options: temperature, top_k and seed.

    Returns:
        what was done.

    Raises:
        ValueError: a line can't be read, or there are too few positions for it.
    """
    arguments = model.hparams
    codec = PromptCodec(list(arguments.vocabulary), arguments.level, arguments.vocab_size)
    lines = read_text_lines(path)
    prompts = [codec.encode(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    _check_positions(model, prompts, length, path)
    # Prompts of like length together: none waits long for the others.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written = [""] * len(lines)
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        lengths = torch.tensor([len(prompts[i]) for i in chunk], device=model.device)
        rows = nn.utils.rnn.pad_sequence([torch.tensor(prompts[i]) for i in chunk], batch_first=True).to(model.device)
        tokens = model.generate(rows, length, lengths=lengths, **{**options, "seed": options["seed"] + start})
        for i, row in zip(chunk, tokens.tolist(), strict=True):
            written[i] = lines[i] + codec.decode(row[len(prompts[i]) : len(prompts[i]) + length])
    output.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
    unknown = sum(prompt.count(codec.index[UNKNOWN]) for prompt in prompts) if codec.vocabulary else 0
    return f"{len(lines)} prompts ({unknown} tokens unknown), {length} tokens added to each -> {output}"


def _check_positions(model: WritingModel, prompts: list[list[int]], length: int, path: Path) -> None:
    positions = model.positions
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]), default=None)
    if positions is None or longest is None:
        return
    # The last token that is added is not read any more.
    most = positions.length - len(prompts[longest]) + 1
    if length > most:
        raise ValueError(
            f"length ({length}): the model has {positions.length} positions and {path}, line {longest + 1}, takes "
            f"{len(prompts[longest])} of them; give a length of at most {max(most, 0)}, or shorten the line"
        )


def complete_image_files(
    model: WritingModel, path: Path, output: Path, batch_size: int, options: dict[str, Any]
) -> str:
    """Completes the images of a folder from their upper halves.

    Args:
        model: the model, in evaluation mode.
        path: folder or image file.
        output: ``.png`` or ``.npz``.
        batch_size: images at once.
        options: temperature, top_k and seed.

    Returns:
        what was done.

    Raises:
        ValueError: the output is neither; an image can't be read.
    """
    if output.suffix.lower() not in (".png", ".npz"):
        raise ValueError(f"output ({output}) must end in .png or .npz")
    names, originals, completed = [], [], []
    size, pixel_range = model.hparams.image_size, model.hparams.pixel_range
    for number, (batch_names, pixels) in enumerate(read_image_files(path, size, batch_size)):
        batch = ImageBatch.from_pixels(pixels, pixel_range)
        drawn = model.complete_images(batch.images.to(model.device), **{**options, "seed": options["seed"] + number})
        names += batch_names
        originals.append(_pixels(batch.images, pixel_range))
        completed.append(_pixels(drawn, pixel_range))
    before, after = np.concatenate(originals), np.concatenate(completed)
    if output.suffix.lower() == ".npz":
        with open(output, "wb") as file:
            np.savez(file, names=np.array(names), images=before, completed=after)
    else:
        from PIL import Image

        Image.fromarray(picture_of_completions(before, after)).save(output)
    return f"{len(names)} images completed from their upper halves -> {output}"


def _pixels(images: Tensor, pixel_range: tuple[float, float]) -> NDArray[np.uint8]:
    """(B, 3, S, S) float in the pixel range to (B, S, S, 3) uint8."""
    size = images.shape[-1]
    return bytes_of_images(images, pixel_range).to(torch.uint8).unflatten(1, (size, size, COLOURS)).cpu().numpy()


def picture_of_completions(images: NDArray[np.uint8], completed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A row for each image: the image, its upper half, the completed image; (N, S, S, 3) twice -> (H, W, 3)."""
    size = images.shape[1]
    given = images.copy()
    given[:, size // 2 :] = 255
    enlarge = max(1, SHOWN_SIDE // size)
    columns = [part.repeat(enlarge, axis=1).repeat(enlarge, axis=2) for part in (images, given, completed)]
    side = size * enlarge
    canvas = np.full((len(images) * (side + GAP) - GAP, 3 * (side + GAP) - GAP, 3), 255, np.uint8)
    for column, part in enumerate(columns):
        for row, image in enumerate(part):
            top, left = row * (side + GAP), column * (side + GAP)
            canvas[top : top + side, left : left + side] = image
    return canvas
