"""Compiled loops of the search: node moves, code lengths of blocks, dissolving of groups.

All work on many separate problems at once. ``block`` is the number of each node's problem (the module to be split);
links between blocks have been dropped, but ``exits`` and ``enters`` still count them. The whole graph is one block.
``outside[b]`` is the exit rate of block b, which is in the same code book as the modules made inside it.
"""

import numpy as np

from ..codelength import plogp
from ..compiled import AHEAD, inner, part, prefetch
from ..flow import RECORDED, UNDIRECTED
from .walk_graph import ENTERS, EXITS, FLOW, LAND, LEAVE, SIZE, members_of, prefetch_row, rate_inside, same, zeros
from .words import states_of, use_words, word_bits, word_table, words_used

# Exceeds rounding errors: what a move must gain, and by how much it must beat another move.
SMALLEST_GAIN = 1e-13
# A module is tried if the node's flow to and from it is at least this share of that with its closest module.
LEAST_SHARE = 0.125
# As many other states of the same physical nodes are tried with each node: frequent words have thousands.
MOST_STATES = 50
# Stands for the rate to a module that has a state of the same physical node but no link.
TOUCHING = 1e-300
# Columns of the modules' state after those of the rates.
INDEX, COST = 6, 7


@inner
def book(kind, exits, enters, flow, leave, land, all_leave):
    """Enter rate of a module with this state, and its contribution to the code length apart from its nodes."""
    if kind == UNDIRECTED:
        return exits, plogp(exits + flow) - 2 * plogp(exits)
    if kind == RECORDED:
        exits += leave * max(1 - land, 0.0)
        enters += max(all_leave - leave, 0.0) * land
    return enters, plogp(exits + flow) - plogp(exits) - plogp(enters)


@inner
def growth(total, log_total, change):
    """``plogp(total + change) - plogp(total)``, by a series if the change is small."""
    if abs(change) > 1e-3 * total or total <= 0:
        return plogp(total + change) - total * log_total
    r = change / total
    # (1 + r) ln(1 + r) = r + r^2 / 2 - r^3 / 6 + r^4 / 12 - r^5 / 20 + ...
    series = r * (1 + r * (1 / 2 + r * (-1 / 6 + r * (1 / 12 - r / 20))))
    return change * log_total + total * series * 1.4426950408889634


@part
def aligned_rows(n):
    """``(n, 8)`` zeros, each row a cache line."""
    flat = zeros(8 * n + 8)
    first = -(flat.ctypes.data // 8) % 8
    return flat[first : first + 8 * n].reshape(n, 8)


@inner
def module_states(kind, graph, module):
    """``(n, 8)``: sums over the members of each module, and the cost of its code book."""
    n = len(module)
    state = aligned_rows(n)
    each_alone = True
    for u in range(n):
        each_alone &= module[u] == u
    for u in range(n):
        a = module[u]
        row = state[a]
        row[FLOW] += graph.rates[u, FLOW]
        row[SIZE] += graph.rates[u, SIZE]
        inside = 0.0 if each_alone else rate_inside(graph, module, u)
        row[EXITS] += graph.rates[u, EXITS] - inside
        row[ENTERS] += graph.rates[u, ENTERS] - inside
        if kind == RECORDED:
            row[LEAVE] += graph.rates[u, LEAVE]
            row[LAND] += graph.rates[u, LAND]
    for a in range(n):
        row = state[a]
        row[EXITS] = max(row[EXITS], 0.0)
        row[ENTERS] = max(row[ENTERS], 0.0)
        row[INDEX], row[COST] = book(kind, row[EXITS], row[ENTERS], row[FLOW], row[LEAVE], row[LAND], graph.all_leave)
        if graph.grouping and row[SIZE] == 1:
            row[COST] = 0
    return state


@inner
def move_nodes(kind, graph, block, outside, module, order, sweeps):
    """Moves nodes, one at a time, to the neighbouring or empty module that shortens the code most.

    A queue holds the nodes ``order``, then those whose neighbourhood changed. Ties go to the module found first.
    Indices are unsigned, as signed ones are tested for negative values at each access.

    Args:
        module: ``(n,)`` int32 in 0 .. n - 1, changed in place.
        sweeps: stops after this many times n visits.

    Returns:
        Bits gained.
    """
    n = len(module)
    all_leave = graph.all_leave
    state = module_states(kind, graph, module)
    index = outside.copy()  # the sum of each block's code book
    free, num_free = empty_modules(state)
    for a in range(n):
        if state[module[a], SIZE] > 0:  # each module once: a negative sign marks those counted
            index[block[a]] += state[module[a], INDEX]
            state[module[a], SIZE] *= -1
    for a in range(n):
        state[a, SIZE] = abs(state[a, SIZE])
    waiting = len(order)
    queue = np.empty(n, np.int32)
    queued = np.empty(n, np.bool_)
    for a in range(n):
        queued[a] = False
    alone_at_first = True
    for i in range(waiting):
        u = order[i]
        queue[i] = u
        queued[u] = True
        alone_at_first &= state[module[u], SIZE] == graph.rates[u, SIZE]
    head = 0
    memory = len(graph.word) > 0
    words = word_table(graph, module)
    first_state, states = states_of(graph)
    to = zeros(n)  # half the rate of the links between the current node and each module
    near = np.empty(n + 1, np.uint32)
    gained = 0.0
    budget = sweeps * n
    first_sweep = budget - waiting if alone_at_first else budget + 1
    empty = zeros(np.int64(8))
    while waiting > 0 and budget > 0:
        budget -= 1
        u = np.uint32(queue[head])
        head += 1
        if head == n:
            head = 0
        waiting -= 1
        queued[u] = False
        if waiting > 2 * AHEAD:
            later = head + 2 * AHEAD
            v = queue[later if later < n else later - n]
            prefetch(graph.indptr, v)
            prefetch(graph.rates, v)
            prefetch(module, v)
            prefetch(block, v)
            later = head + AHEAD
            prefetch_row(graph, queue[later if later < n else later - n])
        a = np.uint32(module[u])  # type: ignore[assignment]
        if budget >= first_sweep and state[a, SIZE] > graph.rates[u, SIZE]:
            continue
        num_near = np.uint64(0)
        first, last = np.uint64(graph.indptr[u]), np.uint64(graph.indptr[u + np.uint64(1)])
        for k in range(first, last):
            b = np.uint32(module[np.uint32(graph.neighbour[k])])
            rate = to[b]
            near[num_near] = b
            num_near += np.uint64(rate == 0)
            to[b] = rate + graph.link[k]
            prefetch(state, b)
        removed = 0.0
        if memory:
            num_words = graph.first_word[u + np.uint64(1)] - graph.first_word[u]
            for k in range(graph.first_word[u], graph.first_word[u + np.uint64(1)]):
                p = graph.word[k]
                used = words_used(words, a, p)
                removed += plogp(used) - plogp(max(used - graph.use[k], 0.0))
                many = first_state[p + 1] - first_state[p]
                for i in range(min(many, max(MOST_STATES // num_words, 1))):  # states of one node attract each other
                    v = states[first_state[p] + (np.int64(u) + i) % many]
                    b = np.uint32(module[v])
                    if to[b] == 0 and block[v] == block[u]:
                        to[b] = TOUCHING
                        near[num_near] = b
                        num_near += np.uint64(1)
        exits, enters, flow = graph.rates[u, EXITS], graph.rates[u, ENTERS], graph.rates[u, FLOW]
        leave, land, size = graph.rates[u, LEAVE], graph.rates[u, LAND], graph.rates[u, SIZE]
        home = state[a]
        alone = home[SIZE] == size
        rest_exits = max(home[EXITS] - exits + 2 * to[a], 0.0)
        rest_enters = max(home[ENTERS] - enters + 2 * to[a], 0.0)
        rest_index = rest_cost = 0.0
        if not alone:
            rest_index, rest_cost = book(
                kind,
                rest_exits,
                rest_enters,
                max(home[FLOW] - flow, 0.0),
                home[LEAVE] - leave,
                home[LAND] - land,
                all_leave,
            )
            if graph.grouping and home[SIZE] - size == 1:
                rest_cost = 0.0
        block_of = np.uint32(block[u])
        total = index[block_of]
        log_total = np.log2(total) if total > 0 else 0.0
        home_gain = rest_cost - home[COST] + removed
        home_index = rest_index - home[INDEX]
        least = 0.0
        for j in range(num_near):
            least = max(least, to[near[j]])
        least *= LEAST_SHARE
        best = 0.0
        best_module = a
        best_index = best_cost = best_exits = best_enters = 0.0
        tries = num_near + np.uint64(not alone and num_free > 0)
        for j in range(tries):
            if j < num_near:
                b = near[j]
                internal = to[b]
                to[b] = 0
                if b == a or (internal < least and internal != TOUCHING):
                    continue
                row = state[b]
            else:
                b = np.uint32(free[num_free - 1])
                row = empty
                internal = 0.0
            new_exits = max(row[EXITS] + exits - 2 * internal, 0.0)
            new_enters = max(row[ENTERS] + enters - 2 * internal, 0.0)
            new_index, new_cost = book(
                kind, new_exits, new_enters, row[FLOW] + flow, row[LEAVE] + leave, row[LAND] + land, all_leave
            )
            if graph.grouping and row[SIZE] + size == 1:
                new_cost = 0.0
            added = 0.0
            if memory:
                for k in range(graph.first_word[u], graph.first_word[u + np.uint64(1)]):
                    used = words_used(words, b, graph.word[k])
                    added += plogp(used) - plogp(used + graph.use[k])
            change = (
                home_gain + added + new_cost - row[COST] + growth(total, log_total, home_index + new_index - row[INDEX])
            )
            if change < best - SMALLEST_GAIN:
                best = change
                best_module = b  # type: ignore[assignment]
                best_index, best_cost = new_index, new_cost
                best_exits, best_enters = new_exits, new_enters
        if best_module == a:
            continue
        gained -= best
        row = state[best_module]
        if row[SIZE] == 0:
            num_free -= 1
        index[block_of] += home_index + best_index - row[INDEX]
        row[EXITS], row[ENTERS] = best_exits, best_enters
        row[INDEX], row[COST] = best_index, best_cost
        row[FLOW] += flow
        row[LEAVE] += leave
        row[LAND] += land
        row[SIZE] += size
        if alone:
            home[:] = 0
            free[num_free] = a
            num_free += 1
        else:
            home[EXITS], home[ENTERS] = rest_exits, rest_enters
            home[INDEX], home[COST] = rest_index, rest_cost
            home[FLOW] = max(home[FLOW] - flow, 0.0)
            home[LEAVE] -= leave
            home[LAND] -= land
            home[SIZE] -= size
        module[u] = best_module
        if memory:
            for k in range(graph.first_word[u], graph.first_word[u + np.uint64(1)]):
                use_words(words, a, graph.word[k], -graph.use[k])
                use_words(words, best_module, graph.word[k], graph.use[k])
            if words.pairs[0] > len(words.key) // 2:
                words = word_table(graph, module)
        for k in range(first, last):
            v = np.uint32(graph.neighbour[k])
            if not queued[v] and np.uint32(module[v]) != best_module:
                queued[v] = True
                place = head + waiting
                queue[place if place < n else place - n] = v
                waiting += 1
    return gained


@part
def empty_modules(state):
    """Numbers of the empty modules, the lowest last, and their count."""
    free = np.empty(len(state), np.int32)
    count = 0
    for a in range(len(state) - 1, -1, -1):
        if state[a, SIZE] == 0:
            free[count] = a
            count += 1
    return free, count


@inner
def cost_of(kind, graph, outside, module):
    """Bits of the modules with their common code book, and of all nodes in one, apart from the nodes' own terms.

    ``outside`` is the rate at which the walk leaves this graph.
    """
    state = module_states(kind, graph, module)
    index = whole = outside
    cost = 0.0
    for a in range(len(module)):
        index += state[a, INDEX]
        cost += state[a, COST]
        whole += graph.rates[a, FLOW]
    if len(graph.word):
        return cost + plogp(index) - plogp(outside) + word_bits(graph, module), (
            plogp(whole) - plogp(outside) + word_bits(graph, same(len(module)))
        )
    return cost + plogp(index) - plogp(outside), plogp(whole) - plogp(outside)


@inner
def dissolve(kind, graph, outside, module, count):
    """Dissolves each group of modules whose code book costs more than naming its modules one level up.

    Changes ``module`` in place. Single moves seldom find this, as the first ones lengthen the code.
    """
    state = module_states(kind, graph, module)
    start, member = members_of(module, count)
    index = outside
    for a in range(count):
        index += state[a, INDEX]
    new = count
    for a in range(count):
        if start[a + 1] - start[a] == 1:
            continue
        change = state[a, FLOW] - state[a, INDEX]
        if plogp(index + change) - plogp(index) - state[a, COST] < -SMALLEST_GAIN:
            index += change
            for i in range(start[a], start[a + 1]):
                module[member[i]] = new
                new += 1
