"""The sample for clustering words: made-up words with vectors, in clusters."""

import numpy as np
from numpy.typing import NDArray

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def make_words(
    num_words: int, num_clusters: int, vector_size: int, seed: int
) -> tuple[list[str], NDArray[np.float32], NDArray[np.int64]]:
    """Made-up words in clusters, in random order.

    The words of a cluster begin with the same syllable, and their vectors point in its direction, with varying noise:
    some have many near neighbours in their own cluster, some hardly any. A fifth of the words lie between two clusters.
    The lengths of the vectors vary.

    Returns:
        distinct words, (num_words, vector_size) float32 vectors, (num_words,) clusters from 0.
    """
    random = np.random.default_rng([seed, 9])
    labels = random.permutation(np.arange(num_words) % num_clusters)
    centers = _unit(random.standard_normal((num_clusters, vector_size)))
    noise = random.uniform(0.3, 1.3, (num_words, 1)) * _unit(random.standard_normal((num_words, vector_size)))
    other = centers[(labels + random.integers(1, max(2, num_clusters), num_words)) % num_clusters]
    between = np.where(random.random((num_words, 1)) < 0.2, 0.8, 0.0)
    vectors = (centers[labels] + between * other + noise) * random.uniform(1, 3, (num_words, 1))
    words, counts = [], [0] * num_clusters
    for label in labels.tolist():
        words.append(_spell(label, num_clusters) + _spell(counts[label], num_words))
        counts[label] += 1
    return words, vectors.astype(np.float32), labels


def _spell(number: int, count: int) -> str:
    """One of ``count`` different strings of syllables, all equally long and as short as possible."""
    spelt = SYLLABLES[number % len(SYLLABLES)]
    return spelt if count <= len(SYLLABLES) else _spell(number // len(SYLLABLES), -(-count // len(SYLLABLES))) + spelt


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
