"""Prediction of a Sparse Transformer from a user's file: continued texts or completed images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.batches import ImageBatch
from layers.transformers.positions import COLOURS, bytes_of_images
from readers.files import read_text_lines
from readers.images import read_image_files

EOS, UNKNOWN = "<eos>", "<unk>"
SHOWN_CHARACTERS = 40  # of a wrong word, in a message
GAP = 2  # white pixels between the images of a picture
MAX_DIGITS = 18  # of a number: Python refuses to parse thousands of digits
SHOWN_SIDE = 96  # pixels that smaller images are enlarged to


class PromptCodec:
    """Lines of a file to tokens, and tokens to the text added to a line.

    Args:
        vocabulary: the tokens; empty if they are numbers.
        level: ``word`` or ``character``.
        vocab_size: how many numbers there are.
    """

    def __init__(self, vocabulary: Sequence[str], level: str, vocab_size: int) -> None:
        self.vocabulary = vocabulary
        self.vocab_size = vocab_size
        self.separator = "" if vocabulary and level == "character" else " "
        self.index = {token: number for number, token in enumerate(vocabulary)}

    def encode(self, line: str, where: str) -> list[int]:
        """The tokens of a line; of text after ``<eos>``, as at the beginning of a line of training text.

        Args:
            line: the line.
            where: names the line in messages.

        Raises:
            ValueError: if tokens are numbers and the line is empty or has anything else.
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
        """The text of the tokens, starting with the separator from the line before them."""
        names = [self.vocabulary[token] if self.vocabulary else str(token) for token in tokens]
        return self.separator + self.separator.join(names)


def continue_text_file(
    path: Path,
    output: Path,
    codec: PromptCodec,
    extend: Callable[[Tensor, Tensor, int], Tensor],
    length: int,
    num_positions: int | None,
    batch_size: int,
) -> str:
    """Writes every line of a file with ``length`` more tokens.

    Args:
        path: the file with the prompts, one per line.
        output: the file to write.
        codec: from lines to tokens and back.
        extend: called with padded prompts (B, T) int64, their lengths (B,) int64 and how many prompts came before;
            gives each prompt with ``length`` more tokens, (B, T + length) int64.
        length: tokens to add to each line.
        num_positions: the most tokens that the model can read; None for any number.
        batch_size: lines per batch.

    Returns:
        A summary for the terminal.

    Raises:
        ValueError: if a line can't be read, or is too long for the model's positions.
    """
    lines = read_text_lines(path)
    prompts = [codec.encode(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    _check_positions(num_positions, prompts, length, path)
    # Prompts of similar length together: none waits long for the others.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written = [""] * len(lines)
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        lengths = torch.tensor([len(prompts[i]) for i in chunk])
        rows = nn.utils.rnn.pad_sequence([torch.tensor(prompts[i]) for i in chunk], batch_first=True)
        tokens = extend(rows, lengths, start)
        for i, row in zip(chunk, tokens.tolist(), strict=True):
            written[i] = lines[i] + codec.decode(row[len(prompts[i]) : len(prompts[i]) + length])
    output.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
    unknown = sum(prompt.count(codec.index[UNKNOWN]) for prompt in prompts) if codec.vocabulary else 0
    return f"{len(lines)} prompts ({unknown} tokens unknown), {length} tokens added to each -> {output}"


def _check_positions(num_positions: int | None, prompts: list[list[int]], length: int, path: Path) -> None:
    if num_positions is None or not prompts:
        return
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]))
    # The last token added is never read.
    most = num_positions - len(prompts[longest]) + 1
    if length > most:
        raise ValueError(
            f"length ({length}): the model has {num_positions} positions and {path}, line {longest + 1}, takes "
            f"{len(prompts[longest])} of them; set a length of at most {max(most, 0)}, or shorten the line"
        )


def complete_image_files(
    path: Path,
    output: Path,
    image_size: int,
    pixel_range: tuple[float, float],
    complete: Callable[[Tensor, int], Tensor],
    batch_size: int,
) -> str:
    """Completes the images of a folder from their upper halves.

    Args:
        path: folder or image file.
        output: ``.png`` or ``.npz``.
        image_size: S, side of the images in pixels.
        pixel_range: values of black and white in the model's images.
        complete: called with images (B, 3, S, S) in ``pixel_range`` and the number of the batch; gives the completed
            ones.
        batch_size: images per batch.

    Returns:
        A summary for the terminal.

    Raises:
        ValueError: if the output has another extension, or an image can't be read.
    """
    if output.suffix.lower() not in (".png", ".npz"):
        raise ValueError(f"output ({output}) must end in .png or .npz")
    names, originals, completed = [], [], []
    for number, (batch_names, pixels) in enumerate(read_image_files(path, image_size, batch_size)):
        batch = ImageBatch.from_pixels(pixels, pixel_range)
        names += batch_names
        originals.append(_pixels(batch.images, pixel_range))
        completed.append(_pixels(complete(batch.images, number), pixel_range))
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
    """One row per image: the image, its upper half, the completed image; (N, S, S, 3) twice -> (H, W, 3)."""
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
