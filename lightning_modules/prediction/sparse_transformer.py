"""What a trained Sparse Transformer generates: continued texts and completed images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.batches import ImageBatch
from layers.transformers.generation import generate
from layers.transformers.positions import COLOURS, bytes_of_images, images_of_bytes
from readers.files import replacing
from readers.images import read_image_files
from readers.text.tokens import EOS, UNKNOWN, Level, Segmenter, TextCodec

from .endings import check_ending
from .lines import OnError, list_of_texts, predict_lines

SHOWN_CHARACTERS = 40  # of a wrong word, in a message
if TYPE_CHECKING:
    _Mixin = Any
else:
    _Mixin = object

GAP = 2  # white pixels between the images of a picture
MAX_DIGITS = 18  # of a number: Python refuses to parse thousands of digits
SHOWN_SIDE = 96  # pixels that smaller images are enlarged to


class PromptCodec:
    """Prompts to tokens, and tokens to the text added to a prompt.

    Args:
        vocabulary: the tokens; empty if they are numbers.
        level: ``word``, ``character`` or ``byte``.
        vocab_size: how many numbers there are.
        segmenter: see ``readers.text.tokens.Tokenizer``.
        keep_layout: see there.
        num_positions: the most tokens that the model can read; None for any number.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        level: Level,
        vocab_size: int,
        segmenter: Segmenter = "none",
        keep_layout: bool = False,
        num_positions: int | None = None,
    ) -> None:
        self.vocab_size, self.num_positions = vocab_size, num_positions
        self.text = TextCodec(vocabulary, level, segmenter, keep_layout) if vocabulary else None

    def encode(self, prompt: str, where: str, length: int = 1, argument: str = "length") -> list[int]:
        """The tokens of a prompt; of text after ``<eos>``, as at the beginning of a line of training text.

        Args:
            prompt: the prompt.
            where: names it in messages.
            length: tokens that are to be added.
            argument: what messages call it.

        Raises:
            ValueError: tokens are numbers and the prompt has anything else; or it is too long for the model.
        """
        if self.text is not None:
            end = self.text.index[EOS]
            tokens = [token for line in prompt.split("\n") for token in (end, *self.text.encode_line(line))]
        else:
            tokens = self._numbers(prompt, where)
        most = length if self.num_positions is None else self.num_positions - len(tokens) + 1  # the last is never read
        if length > most:
            raise ValueError(
                f"{argument} ({length}): the model has {self.num_positions} positions and {where}, takes {len(tokens)} "
                f"of them; set a {argument} of at most {max(most, 0)}, or shorten the line"
            )
        return tokens

    def _numbers(self, prompt: str, where: str) -> list[int]:
        words = prompt.split()
        wrong = next((word for word in words if not self._is_token(word)), None)
        if wrong is not None or not words:
            what = "is empty" if wrong is None else f"has {wrong[:SHOWN_CHARACTERS]!r}"
            raise ValueError(f"{where} {what}: write tokens as numbers from 0 to {self.vocab_size - 1}")
        return [int(word) for word in words]

    def _is_token(self, word: str) -> bool:
        return word.isdecimal() and len(word) <= MAX_DIGITS and int(word) < self.vocab_size

    def unknown(self, tokens: list[int]) -> int:
        """How many of the tokens are ``<unk>``."""
        return 0 if self.text is None else tokens.count(self.text.index[UNKNOWN])

    def decode(self, tokens: list[int], line_end: str = EOS) -> str:
        """The text of the tokens."""
        if self.text is None:
            return " ".join(map(str, tokens))
        return self.text.decode(tokens, line_end)

    def separator(self, prompt: str) -> str:
        """What stands between a prompt and the tokens after it: nothing where it ends in a blank."""
        return "" if prompt[-1:].isspace() else " " if self.text is None else self.text.separator


Extend = Callable[[Tensor, Tensor, int], Tensor]


class Prompt(NamedTuple):
    """A prompt as it is written, and its tokens."""

    text: str
    tokens: list[int]


class PromptExtender:
    """Prompts to the same with ``length`` more tokens.

    Args:
        codec: from prompts to tokens and back.
        extend: called with padded prompts (B, T) int64, their lengths (B,) int64 and how many prompts came before;
            gives each prompt with ``length`` more tokens, (B, T + length) int64.
        length: tokens to add.
        line_end: what stands for the end of a line.
        argument: what messages call the length.

    Attributes:
        prompts: how many were extended.
        unknown: how many of their tokens are not in the vocabulary.
    """

    def __init__(
        self, codec: PromptCodec, extend: Extend, length: int, line_end: str = EOS, argument: str = "length"
    ) -> None:
        if length < 1:
            raise ValueError(f"{argument} ({length}) must be at least 1")
        self.codec, self.extend, self.length, self.line_end = codec, extend, length, line_end
        self.argument = argument
        self.prompts = self.unknown = 0

    def read(self, prompt: str, where: str) -> Prompt | str:
        """A prompt with its tokens; an empty one as it is.

        Raises:
            ValueError: as ``PromptCodec.encode``.
        """
        if not prompt.strip() and "\n" not in prompt:
            return ""
        return Prompt(prompt, self.codec.encode(prompt, where, self.length, self.argument))

    def __call__(self, prompts: Sequence[Prompt], first: int = 0) -> list[str]:
        """The prompts with their continuations."""
        self.prompts += len(prompts)
        self.unknown += sum(self.codec.unknown(prompt.tokens) for prompt in prompts)
        lengths = torch.tensor([len(prompt.tokens) for prompt in prompts])
        rows = nn.utils.rnn.pad_sequence([torch.tensor(prompt.tokens) for prompt in prompts], batch_first=True)
        written = self.extend(rows, lengths, first).tolist()
        return [
            prompt.text
            + self.codec.separator(prompt.text)
            + self.codec.decode(row[len(prompt.tokens) : len(prompt.tokens) + self.length], self.line_end)
            for prompt, row in zip(prompts, written, strict=True)
        ]


def complete_image_files(
    path: Path,
    output: Path,
    image_size: int,
    pixel_range: tuple[float, float],
    complete: Callable[[Tensor, int], Tensor],
    batch_size: int,
    on_error: OnError = "stop",
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
        on_error: at images that can't be read ``stop`` and name all, or ``skip`` them.

    Returns:
        A summary for the terminal.

    Raises:
        ValueError: if the output has another extension, or an image can't be read.
    """
    check_ending(output, (".png", ".npz"))
    names, originals, completed = [], [], []
    for number, (batch_names, pixels) in enumerate(read_image_files(path, image_size, batch_size, on_error=on_error)):
        batch = ImageBatch.from_pixels(pixels, pixel_range)
        names += batch_names
        originals.append(_pixels(batch.images, pixel_range))
        completed.append(_pixels(complete(batch.images, number), pixel_range))
    before, after = np.concatenate(originals), np.concatenate(completed)
    with replacing(output) as part, part.open("wb") as file:
        if output.suffix.lower() == ".npz":
            np.savez(file, names=np.array(names), images=before, completed=after)
        else:
            from PIL import Image

            Image.fromarray(picture_of_completions(before, after)).save(file, format="png")
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


class GeneratesSequences(_Mixin):
    """Mixin of ``SparseTransformer``: texts, sequences and images that go on, from Python and from files."""

    @torch.no_grad()
    def generate(
        self,
        prompts: str | list[str] | Tensor,
        count: int = 100,
        *,
        lengths: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Continues a text, several texts, or sequences of tokens; never by ``<unk>``.

        Args:
            prompts: a text or a list of texts, which the result begins with; an empty one stays empty. Or tokens, as
                in ``layers.transformers.generate``.
            count: tokens to add to each.
            lengths: of the sequences of tokens.
            temperature: divides the logits; 0 takes the most probable token.
            top_k: sample among the k most probable tokens only.
            seed: of the sampling.

        Raises:
            TypeError: something among the texts is no text.
            ValueError: an argument is out of range, or a text doesn't fit the model.
        """
        drawing: dict[str, Any] = {"temperature": temperature, "top_k": top_k}
        if isinstance(prompts, Tensor):
            generator = torch.Generator(self.device).manual_seed(seed)
            never = [number for number, token in enumerate(self.hparams.vocabulary) if token == UNKNOWN]
            return generate(self.network, prompts, count, lengths=lengths, generator=generator, never=never, **drawing)
        if isinstance(prompts, str):
            return self.generate([prompts], count, seed=seed, **drawing)[0]
        prompts = list_of_texts(prompts, "generate")
        self.eval()
        extender = self._extender(count, seed, drawing, line_end="\n", argument="count")
        read = [extender.read(prompt, f"prompt {number}") for number, prompt in enumerate(prompts, 1)]
        written = iter(extender(found) if (found := [item for item in read if isinstance(item, Prompt)]) else ())
        return [next(written) if isinstance(item, Prompt) else item for item in read]

    def _extender(self, length: int, seed: int, drawing: dict[str, Any], **written: str) -> PromptExtender:
        """Of prompts of text.

        Raises:
            ValueError: ``length`` is below 1, or the model was trained on images.
        """
        if self.reads_images:
            raise ValueError("this model was trained on images: it can't continue texts")

        def extend(prompts: Tensor, lengths: Tensor, first: int) -> Tensor:
            prompts, lengths = prompts.to(self.device), lengths.to(self.device)
            return self.generate(prompts, length, lengths=lengths, seed=seed + first, **drawing)

        arguments = self.hparams
        codec = PromptCodec(
            arguments.vocabulary,
            arguments.level,
            arguments.vocab_size,
            arguments.segmenter,
            arguments.keep_layout,
            None if self.positions is None else self.positions.length,
        )
        return PromptExtender(codec, extend, length, **written)

    def complete_images(
        self, images: Tensor, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Tensor:
        """Images with their lower half generated from the upper one: (B, 3, S, S) float -> the same.

        Raises:
            ValueError: if the model was not trained on images.
        """
        if not self.reads_images:
            raise ValueError("this model was trained on text: it can't complete images")
        size, pixel_range = self.hparams.image_size, self.hparams.pixel_range
        values = bytes_of_images(images, pixel_range)
        given = (size // 2) * size * COLOURS
        count = values.shape[1] - given
        drawn = self.generate(values[:, :given], count, temperature=temperature, top_k=top_k, seed=seed)
        return images_of_bytes(drawn, size, pixel_range)

    def predict_file(
        self,
        input: Path,
        output: Path,
        length: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
        on_error: OnError = "stop",
        resume: bool = False,
        encoding: str = "utf-8",
    ) -> str:
        """Continues texts, or completes images from their upper halves.

        A model of text takes a text file, one prompt per line, and writes each prompt with its continuation, one per
        line; ``<eos>`` stands for the end of a line of training text, and also precedes each prompt. Empty lines stay
        empty. Files of text may be of any size; what is done is in ``<output>.part`` until all is. A model of
        sequences without a vocabulary reads and writes numbers. A model of images takes a folder or one image file.

        Args:
            input: a text file, gzipped or not; or a folder of image files, sub-folders included, or one image file.
            output: the text file to write, gzipped if it ends in ``.gz``; for images a ``.png`` with one row per image
                (the image, its upper half, the completed image), or a ``.npz``: ``names``, ``images`` and
                ``completed`` (N, S, S, 3) uint8.
            length: tokens to add to each prompt (fixed for images).
            temperature: divides the logits; 0 takes the most probable token.
            top_k: sample among the k most probable tokens only.
            seed: of the sampling.
            batch_size: prompts or images per batch.
            on_error: at a line that can't be continued ``stop``, or name it and ``skip`` it: its line stays empty; at
                images that can't be read ``stop`` and name all, or ``skip`` them.
            resume: go on with the ``<output>.part`` of an interrupted prediction of texts.
            encoding: of a text file.

        Returns:
            A summary for the terminal.

        Raises:
            ValueError: if an argument is out of range, the file can't be read or has an invalid prompt, or the model
                has too few positions.
        """
        for name, value in (("length", length), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.eval()
        if self.reads_images:

            def complete(images: Tensor, batch: int) -> Tensor:
                images = images.to(self.device)
                return self.complete_images(images, temperature=temperature, top_k=top_k, seed=seed + batch)

            size, pixel_range = self.hparams.image_size, self.hparams.pixel_range
            return complete_image_files(Path(input), Path(output), size, pixel_range, complete, batch_size, on_error)

        extender = self._extender(length, seed, {"temperature": temperature, "top_k": top_k})
        counts = predict_lines(
            Path(input),
            Path(output),
            extender.read,
            extender,
            batch_size=batch_size,
            size=lambda prompt: len(prompt.tokens),
            on_error=on_error,
            resume=resume,
            encoding=encoding,
        )
        prompts = f"{extender.prompts} prompts ({extender.unknown} tokens unknown)"
        return f"{prompts}, {length} tokens added to each{counts.remarks} -> {output}"
