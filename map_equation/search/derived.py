"""Graphs made of another one: modules as nodes, or the insides of modules. Compiled."""

import numpy as np

from ..compiled import AHEAD, inner, part
from ..flow import RECORDED
from .walk_graph import ENTERS, EXITS, FLOW, LAND, LEAVE, SIZE, WalkGraph, identity, members_of, prefetch_row, zeros


@inner
def aggregate(graph, module, count):
    """Modules as nodes; links inside a module are dropped."""
    start, member = members_of(module, count)
    indptr = np.empty(count + 1, np.int64)
    neighbour = np.empty(len(graph.neighbour), np.int32)
    link = np.empty(len(graph.neighbour))
    rates = np.zeros((count, graph.rates.shape[1]))
    to = zeros(count)
    done = np.uint64(0)
    indptr[0] = 0
    for a in range(count):
        row_start = done
        inside = 0.0
        for i in range(start[a], start[a + 1]):
            u = member[i]
            if i + AHEAD < len(member):
                prefetch_row(graph, member[i + AHEAD])
            for column in range(rates.shape[1]):
                rates[a, column] += graph.rates[u, column]
            for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
                b = np.uint32(module[np.uint32(graph.neighbour[k])])
                if b == a:
                    inside += graph.link[k]
                    continue
                rate = to[b]
                neighbour[done] = b
                done += np.uint64(rate == 0)
                to[b] = rate + graph.link[k]
        for k in range(row_start, done):
            b = np.uint32(neighbour[k])
            link[k] = to[b]
            to[b] = 0
        indptr[a + 1] = done
        rates[a, EXITS] = max(rates[a, EXITS] - inside, 0.0)
        rates[a, ENTERS] = max(rates[a, ENTERS] - inside, 0.0)
    first_word, word, use = merge_words(graph, start, member)
    return WalkGraph(
        indptr,
        neighbour[:done].copy(),
        link[:done].copy(),
        rates,
        graph.grouping,
        graph.all_leave,
        first_word,
        word,
        use,
        graph.num_words,
    )


@part
def merge_words(graph, start, member):
    """``first_word``, ``word``, ``use`` of modules with these members."""
    if not len(graph.word):
        return graph.first_word, graph.word, graph.use
    count = len(start) - 1
    first_word = np.empty(count + 1, np.int64)
    word, use = np.empty(len(graph.word), np.int32), np.empty(len(graph.word))
    place = np.empty(graph.num_words, np.int64)  # of a physical node in the current module, or before it
    for p in range(graph.num_words):
        place[p] = -1
    done = 0
    first_word[0] = 0
    for a in range(count):
        for i in range(start[a], start[a + 1]):
            for k in range(graph.first_word[member[i]], graph.first_word[member[i] + 1]):
                p = graph.word[k]
                if place[p] < first_word[a]:
                    place[p] = done
                    word[done], use[done] = p, 0.0
                    done += 1
                use[place[p]] += graph.use[k]
        first_word[a + 1] = done
    return first_word, word[:done].copy(), use[:done].copy()


@inner
def only_inside(graph, module, changed):
    """The same nodes with only the links inside the changed modules.

    Returns:
        The graph; the nodes of these modules, one module after the other; modules to start from, which are these
        nodes, each by itself, and the other modules.
    """
    n = len(module)
    indptr = np.empty(n + 1, np.int64)
    neighbour = np.empty(len(graph.neighbour), np.int32)
    link = np.empty(len(graph.neighbour))
    done = np.uint64(0)
    indptr[0] = 0
    for u in range(n):
        a = module[u]
        if changed[a]:
            for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
                v = np.uint32(graph.neighbour[k])
                neighbour[done] = v
                link[done] = graph.link[k]
                done += np.uint64(module[v] == a)
        indptr[u + 1] = done
    first, member = members_of(module, len(changed))
    start = identity(n)
    count = 0
    for a in range(len(changed)):
        for i in range(first[a], first[a + 1]):
            u = member[i]
            if changed[a]:
                member[count] = u
                count += 1
            else:
                start[u] = member[first[a]]
    return (
        WalkGraph(
            indptr,
            neighbour[:done],  # no copies: memory that is not written takes no place
            link[:done],
            graph.rates,
            graph.grouping,
            graph.all_leave,
            graph.first_word,
            graph.word,
            graph.use,
            graph.num_words,
        ),
        member[:count],
        start,
    )


@inner
def subgraph(graph, nodes, number, word_number):
    """These nodes, all their code words and the links among them.

    ``number (n,)`` and ``word_number (num_words,)`` are scratch memory: -1 everywhere, and left so.
    """
    n = len(nodes)
    entries = 0
    for i in range(n):
        u = nodes[i]
        number[u] = i
        entries += graph.indptr[u + 1] - graph.indptr[u]
    indptr = np.empty(n + 1, np.int64)
    neighbour = np.empty(entries, np.int32)
    link = np.empty(entries)
    rates = np.empty((n, graph.rates.shape[1]))
    done = np.uint64(0)
    indptr[0] = 0
    for i in range(n):
        u = nodes[i]
        for k in range(np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + 1])):
            j = number[np.uint32(graph.neighbour[k])]
            neighbour[done] = j
            link[done] = graph.link[k]
            done += np.uint64(j >= 0)
        indptr[i + 1] = done
        for column in range(rates.shape[1]):
            rates[i, column] = graph.rates[u, column]
    for i in range(n):
        number[nodes[i]] = -1
    num_words = 0
    many = n if len(graph.word) else 0  # each node of a whole graph has one
    first_word = np.empty(many + 1 if many else 0, np.int64)
    word, use = np.empty(many, np.int32), np.empty(many)
    for i in range(many):
        p = graph.word[nodes[i]]
        if word_number[p] < 0:
            word_number[p] = num_words
            num_words += 1
        first_word[i], word[i], use[i] = i, word_number[p], graph.use[nodes[i]]
    for i in range(many):
        word_number[graph.word[nodes[i]]] = -1
    if many:
        first_word[many] = many
    return WalkGraph(
        indptr,
        neighbour[:done].copy(),
        link[:done].copy(),
        rates,
        False,
        graph.all_leave,
        first_word,
        word,
        use,
        num_words,
    )


@inner
def group(kind, graph, module, count):
    """Modules as nodes to be grouped: their enter rates take the place of the visit rates."""
    level = aggregate(graph, module, count)
    rates = level.rates
    for a in range(count):
        rates[a, FLOW] = rates[a, ENTERS]
        if kind == RECORDED:
            rates[a, FLOW] += max(level.all_leave - rates[a, LEAVE], 0.0) * rates[a, LAND]
        rates[a, SIZE] = 1
    return WalkGraph(
        level.indptr,
        level.neighbour,
        level.link,
        rates,
        True,
        level.all_leave,
        np.empty(0, np.int64),  # enter rates have a word each
        np.empty(0, np.int32),
        np.empty(0),
        0,
    )
