"""Words that a vocabulary lacks: how often, and how ``<unk>``, which they all are, gets trained."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from readers.text.tokens import EOS, UNKNOWN

from .loader import mix64, unit_interval
from .windows import Alter

SOME = 0.01  # share of words that are read as <unk> where the training text has none
SHARE_DIFFERS = 5e-4  # shares that differ by more are those of other tasks
MOST = 0.5  # the share above which a text is not of this vocabulary
LONG_WORD = 5  # characters: the mean length of "words" of Chinese above which they are none


def read_as_unknown(rate: float, vocabulary: Sequence[str]) -> Alter:
    """What reads a share of words as ``<unk>``: always the same places of a text; ``<eos>`` stays.

    Args:
        rate: the share, in [0, 1].
        vocabulary: with ``<eos>`` and ``<unk>``.
    """
    end, unknown = vocabulary.index(EOS), vocabulary.index(UNKNOWN)

    def alter(tokens: Tensor, places: Tensor) -> Tensor:
        chosen = unit_interval(mix64(places.numpy().astype(np.uint64) + 1)) < rate  # 0 would be hashed to 0
        return tokens.masked_fill(torch.from_numpy(chosen) & (tokens != end), unknown)

    return alter


def describe_shares(shares: Mapping[str, float], level: str) -> str:
    """One line: which share of each text is ``<unk>``."""
    return f"{UNKNOWN}: " + ", ".join(f"{share:.2%} of the {level}s of {split}" for split, share in shares.items())


def compare_shares(now: Mapping[str, float], before: Mapping[str, float], was_trained: bool, level: str) -> str | None:
    """A warning where perplexities of a text don't compare with those of the text that a model was trained with.

    Args:
        now: the share of ``<unk>`` in each text.
        before: the same when the model was trained.
        was_trained: whether that model has seen any ``<unk>``.
        level: what tokens are.
    """
    if now["test"] > MOST >= before["test"]:
        otherwise = (
            ", or its words end elsewhere than in the training text (as in Chinese without blanks): separate them as "
            "there, or train on this text (data.segmenter=jieba, data.level=character)"
        )
        return (
            f"{now['test']:.2%} of the {level}s of the test text are {UNKNOWN}, so its perplexity says nothing: it is "
            f"of another language{otherwise if level == 'word' else ' or script: train on this text'}"
        )
    if now["test"] > 0 and not was_trained:
        return (
            f"{now['test']:.2%} of the {level}s of the test text are {UNKNOWN}, which this model never met in its "
            "training: what it makes of them means nothing (train with data.min_count or data.unk_rate)"
        )
    if abs(now["test"] - before["test"]) > SHARE_DIFFERS:
        return (
            f"{now['test']:.2%} of the {level}s of the test text are {UNKNOWN}, of the one that the model was trained "
            f"with {before['test']:.2%}: their perplexities don't compare, since {UNKNOWN} is easier than a word"
        )
    return None


def unsegmented(vocabulary: Sequence[str]) -> str | None:
    """A warning where words are whole sentences of Chinese or Japanese."""
    words = [word for word in vocabulary if any("\u3040" <= sign <= "\u9fff" for sign in word)]
    mean = sum(map(len, words)) / max(len(words), 1)
    if 2 * len(words) < len(vocabulary) - 2 or mean <= LONG_WORD:
        return None
    return (
        f"the words of the training text have {mean:.0f} characters in the mean: it seems to be Chinese without blanks "
        "between words; set data.segmenter=jieba or data.level=character"
    )
