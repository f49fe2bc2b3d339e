"""Code words that the states of a physical node share in a module. Compiled.

Source: Rosvall et al. 2014; De Domenico et al. 2015.
"""

from typing import NamedTuple

import numpy as np

from ..codelength import plogp
from ..compiled import inner, part
from .walk_graph import members_of


class Words(NamedTuple):
    """The rate at which each module uses each physical node's code word: a hash table with open addressing.

    Args:
        key: ``(size,)`` int64, module * num_words + physical node, -1 where free; size is a power of 2.
        use: ``(size,)`` the rates.
        pairs: ``(1,)`` int64, entries in use, also of pairs whose rate has fallen to 0.
        num_words: number of physical nodes.
    """

    key: np.ndarray
    use: np.ndarray
    pairs: np.ndarray
    num_words: int


@part
def place_of(words, module, word):
    """The place of a pair, or that where it is to be put."""
    key = np.int64(module) * words.num_words + np.int64(word)
    mask = np.int64(len(words.key) - 1)
    # Spreads neighbouring keys: the golden ratio's digits.
    place = np.int64((np.uint64(key) * np.uint64(11400714819323198485)) >> np.uint64(20)) & mask
    while words.key[place] != key and words.key[place] != -1:
        place = (place + 1) & mask
    return place, key


@inner
def words_used(words, module, word):
    """The rate of a pair, 0 if it does not occur."""
    place, key = place_of(words, module, word)
    return words.use[place] if words.key[place] == key else 0.0


@inner
def use_words(words, module, word, change):
    """Changes the rate of a pair."""
    place, key = place_of(words, module, word)
    if words.key[place] != key:
        words.key[place] = key
        words.use[place] = 0.0
        words.pairs[0] += 1
    words.use[place] = max(words.use[place] + change, 0.0)


@inner
def word_table(graph, module):
    """The table of these modules, at most an eighth full."""
    size = 1
    while size < 8 * len(graph.word):
        size *= 2
    key, count = np.empty(size, np.int64), np.empty(1, np.int64)
    count[0] = 0
    for i in range(size):
        key[i] = -1
    words = Words(key, np.empty(size), count, graph.num_words)
    if len(graph.word):
        for u in range(len(module)):
            for k in range(graph.first_word[u], graph.first_word[u + 1]):
                use_words(words, module[u], graph.word[k], graph.use[k])
    return words


@inner
def states_of(graph):
    """The nodes of the graph that use each word: ``first (num_words + 1,)``, ``node``."""
    first, place = members_of(graph.word, graph.num_words)
    owner = np.empty(len(graph.word), np.int32)
    if len(owner):
        for u in range(len(graph.rates)):
            for k in range(graph.first_word[u], graph.first_word[u + 1]):
                owner[k] = u
        for i in range(len(place)):
            place[i] = owner[place[i]]
    return first, place


@inner
def word_bits(graph, module):
    """The code words' part of the cost of these modules."""
    words = word_table(graph, module)
    bits = 0.0
    for i in range(len(words.key)):
        if words.key[i] >= 0:
            bits -= plogp(words.use[i])
    return bits
