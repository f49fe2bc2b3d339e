"""Compiled loops of the search: node moves, aggregation, restriction to the inside of modules.

All of them work on many separate problems at once. ``block`` numbers the problem (the module to be split) of each
node; links between blocks have been dropped, while ``exits`` and ``enters`` still count them. The whole graph is one
block. ``outside[b]`` is the exit rate of block b, which shares the code book of the modules made inside it.
"""

import numba
import numpy as np

from .codelength import plogp
from .flow import RECORDED, UNDIRECTED, Flow

# A move must gain more than rounding errors do.
SMALLEST_GAIN = 1e-13
# A module is tried where the node's flow to and from it has this share of that with its closest module.
LEAST_SHARE = 0.125
# Columns of the modules' state.
EXITS, ENTERS, FLOW, LEAVE, LAND, INDEX, COST, SIZE = range(8)


@numba.njit(cache=True, nogil=True)
def book(kind, exits, enters, flow, leave, land, all_leave):
    """Enter rate of a module with this state, and what the module adds to the code length apart from its nodes."""
    if kind == UNDIRECTED:
        return exits, plogp(exits + flow) - 2 * plogp(exits)
    if kind == RECORDED:
        exits += leave * max(1 - land, 0.0)
        enters += max(all_leave - leave, 0.0) * land
    return enters, plogp(exits + flow) - plogp(exits) - plogp(enters)


@numba.njit(cache=True, nogil=True)
def growth(total, log_total, change):
    """``plogp(total + change) - plogp(total)``, by a series where the change is small."""
    if abs(change) > 1e-3 * total or total <= 0:
        return plogp(total + change) - total * log_total
    r = change / total
    # (1 + r) ln(1 + r) = r + r^2 / 2 - r^3 / 6 + r^4 / 12 - r^5 / 20 + ...
    series = r * (1 + r * (1 / 2 + r * (-1 / 6 + r * (1 / 12 - r / 20))))
    return change * log_total + total * series * 1.4426950408889634


@numba.njit(cache=True, nogil=True)
def module_states(kind, graph, module, all_leave):
    """``(n, 8)``: sums over the members of each module, with what its book costs."""
    n = len(module)
    grouping = len(graph.parts) > 0
    state = np.zeros((n, 8))
    for u in range(n):
        a = module[u]
        row = state[a]
        row[FLOW] += graph.flow[u]
        row[SIZE] += graph.parts[u] if grouping else 1
        exits = graph.exits[u]
        enters = graph.enters[u]
        for k in range(graph.indptr[u], graph.indptr[u + 1]):
            if module[graph.neighbour[k]] == a:
                exits -= graph.out[k]
                enters -= graph.into[k]
        row[EXITS] += exits
        row[ENTERS] += enters
        if kind == RECORDED:
            row[LEAVE] += graph.leave[u]
            row[LAND] += graph.land[u]
    for a in range(n):
        row = state[a]
        row[EXITS] = max(row[EXITS], 0.0)
        row[ENTERS] = max(row[ENTERS], 0.0)
        row[INDEX], row[COST] = book(kind, row[EXITS], row[ENTERS], row[FLOW], row[LEAVE], row[LAND], all_leave)
        if grouping and row[SIZE] == 1:
            row[COST] = 0
    return state


@numba.njit(cache=True, nogil=True, error_model="numpy")
def move_nodes(kind, graph, block, outside, module, order, sweeps):
    """Moves nodes, one at a time, to the neighbouring or to an empty module that shortens the code most.

    A queue, filled in the given order, holds the nodes whose surroundings changed. Ties go to the module met first.

    Args:
        module: ``(n,)`` int32 in 0 .. n - 1, changed in place.
        sweeps: ends when so many times n nodes have been visited.

    Returns:
        Bits gained.
    """
    n = len(module)
    all_leave = graph.leave.sum()
    state = module_states(kind, graph, module, all_leave)
    grouping = len(graph.parts) > 0
    index = outside.copy()  # the sum of each block's code book
    seen = np.zeros(n, np.bool_)
    free = np.empty(n, np.int32)
    num_free = 0
    for u in range(n):
        if not seen[module[u]]:
            seen[module[u]] = True
            index[block[u]] += state[module[u], INDEX]
    for a in range(n - 1, -1, -1):
        if state[a, SIZE] == 0:
            free[num_free] = a
            num_free += 1
    queue = order.copy()
    queued = np.ones(n, np.bool_)
    head = 0
    waiting = n
    to = np.zeros((n, 2))  # rates of the node at hand to and from each module
    near = np.empty(n, np.int32)
    gained = 0.0
    budget = sweeps * n
    empty = np.zeros(8)
    while waiting > 0 and budget > 0:
        budget -= 1
        u = queue[head]
        head += 1
        if head == n:
            head = 0
        waiting -= 1
        queued[u] = False
        a = module[u]
        num_near = 0
        first, last = graph.indptr[u], graph.indptr[u + 1]
        for k in range(first, last):
            b = module[graph.neighbour[k]]
            row = to[b]
            if row[0] == 0 and row[1] == 0:
                near[num_near] = b
                num_near += 1
            row[0] += graph.out[k]
            row[1] += graph.into[k]
        exits, enters, flow = graph.exits[u], graph.enters[u], graph.flow[u]
        leave = land = 0.0
        if kind == RECORDED:
            leave, land = graph.leave[u], graph.land[u]
        home = state[a]
        size = graph.parts[u] if grouping else 1.0
        alone = home[SIZE] == size
        internal = to[a, 0] + to[a, 1]
        rest_exits = max(home[EXITS] - exits + internal, 0.0)
        rest_enters = max(home[ENTERS] - enters + internal, 0.0)
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
            if grouping and home[SIZE] - size == 1:
                rest_cost = 0.0
        total = index[block[u]]
        log_total = np.log2(total) if total > 0 else 0.0
        home_gain = rest_cost - home[COST]
        home_index = rest_index - home[INDEX]
        least = 0.0
        for j in range(num_near):
            least = max(least, to[near[j], 0] + to[near[j], 1])
        least *= LEAST_SHARE
        best = -SMALLEST_GAIN
        best_module = a
        best_index = best_cost = best_exits = best_enters = 0.0
        tries = num_near if alone or num_free == 0 else num_near + 1
        for j in range(tries):
            if j < num_near:
                b = near[j]
                if b == a:
                    continue
                internal = to[b, 0] + to[b, 1]
                if internal < least:
                    continue
                row = state[b]
            else:
                b = free[num_free - 1]
                row = empty
                internal = 0.0
            new_exits = max(row[EXITS] + exits - internal, 0.0)
            new_enters = max(row[ENTERS] + enters - internal, 0.0)
            new_index, new_cost = book(
                kind, new_exits, new_enters, row[FLOW] + flow, row[LEAVE] + leave, row[LAND] + land, all_leave
            )
            if grouping and row[SIZE] + size == 1:
                new_cost = 0.0
            change = home_gain + new_cost - row[COST] + growth(total, log_total, home_index + new_index - row[INDEX])
            if change < best:
                best = change
                best_module = b
                best_index, best_cost = new_index, new_cost
                best_exits, best_enters = new_exits, new_enters
        for j in range(num_near):
            to[near[j], 0] = 0
            to[near[j], 1] = 0
        if best_module == a:
            continue
        gained -= best
        row = state[best_module]
        if row[SIZE] == 0:
            num_free -= 1
        index[block[u]] += home_index + best_index - row[INDEX]
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
        for k in range(first, last):
            v = graph.neighbour[k]
            if not queued[v] and module[v] != best_module:
                queued[v] = True
                place = head + waiting
                queue[place if place < n else place - n] = v
                waiting += 1
    return gained


@numba.njit(cache=True, nogil=True)
def renumber(label):
    """Labels in order of first appearance, in place; -1 stays. Returns how many."""
    highest = -1
    for u in range(len(label)):
        highest = max(highest, label[u])
    number = np.full(highest + 1, -1, np.int32)
    count = 0
    for u in range(len(label)):
        a = label[u]
        if a < 0:
            continue
        if number[a] < 0:
            number[a] = count
            count += 1
        label[u] = number[a]
    return count


@numba.njit(cache=True, nogil=True)
def members_of(label, count):
    """Nodes sorted by label: ``start (count + 1,)``, ``member (n,)``."""
    start = np.zeros(count + 1, np.int64)
    for u in range(len(label)):
        start[label[u] + 1] += 1
    for a in range(count):
        start[a + 1] += start[a]
    place = start[:-1].copy()
    member = np.empty(len(label), np.int32)
    for u in range(len(label)):
        member[place[label[u]]] = u
        place[label[u]] += 1
    return start, member


@numba.njit(cache=True, nogil=True)
def aggregate_links(indptr, neighbour, out, into, module, count, one_array):
    """CSR of the modules; links inside a module are left out."""
    start, member = members_of(module, count)
    new_indptr = np.zeros(count + 1, np.int64)
    new_neighbour = np.empty(len(neighbour), np.int32)
    new_out = np.empty(len(neighbour))
    new_into = new_out if one_array else np.empty(len(neighbour))
    place = np.full(count, -1, np.int64)
    done = 0
    for a in range(count):
        row_start = done
        for i in range(start[a], start[a + 1]):
            u = member[i]
            for k in range(indptr[u], indptr[u + 1]):
                b = module[neighbour[k]]
                if b == a:
                    continue
                p = place[b]
                if p < row_start:
                    place[b] = done
                    new_neighbour[done] = b
                    new_out[done] = out[k]
                    if not one_array:
                        new_into[done] = into[k]
                    done += 1
                else:
                    new_out[p] += out[k]
                    if not one_array:
                        new_into[p] += into[k]
        new_indptr[a + 1] = done
    new_out = new_out[:done].copy()
    return new_indptr, new_neighbour[:done].copy(), new_out, new_out if one_array else new_into[:done].copy()


@numba.njit(cache=True, nogil=True)
def restrict_links(indptr, neighbour, out, into, block, one_array):
    """CSR with the links inside blocks only; nodes of block -1 keep none."""
    n = len(indptr) - 1
    new_indptr = np.zeros(n + 1, np.int64)
    done = 0
    for u in range(n):
        if block[u] >= 0:
            for k in range(indptr[u], indptr[u + 1]):
                done += block[neighbour[k]] == block[u]
        new_indptr[u + 1] = done
    new_neighbour = np.empty(done, np.int32)
    new_out = np.empty(done)
    new_into = new_out if one_array else np.empty(done)
    done = 0
    for u in range(n):
        if block[u] < 0:
            continue
        for k in range(indptr[u], indptr[u + 1]):
            if block[neighbour[k]] == block[u]:
                new_neighbour[done] = neighbour[k]
                new_out[done] = out[k]
                if not one_array:
                    new_into[done] = into[k]
                done += 1
    return new_indptr, new_neighbour, new_out, new_into


@numba.njit(cache=True, nogil=True)
def module_sums(kind, graph, module, count):
    """Flow, exits, enters, leave, land, parts of each module as a node of the aggregated graph."""
    flow, exits, enters = np.zeros(count), np.zeros(count), np.zeros(count)
    recorded = count if kind == RECORDED else 0
    leave, land = np.zeros(recorded), np.zeros(recorded)
    parts = np.zeros(count if len(graph.parts) else 0)
    for u in range(len(module)):
        a = module[u]
        flow[a] += graph.flow[u]
        gone, come = graph.exits[u], graph.enters[u]
        for k in range(graph.indptr[u], graph.indptr[u + 1]):
            if module[graph.neighbour[k]] == a:
                gone -= graph.out[k]
                come -= graph.into[k]
        exits[a] += gone
        enters[a] += come
        if kind == RECORDED:
            leave[a] += graph.leave[u]
            land[a] += graph.land[u]
        if len(parts):
            parts[a] += graph.parts[u]
    return flow, np.maximum(exits, 0), np.maximum(enters, 0), leave, land, parts


@numba.njit(cache=True, nogil=True)
def block_costs(kind, graph, block, outside, module, all_leave):
    """Bits of each block with these modules, and left whole, apart from the nodes' own terms."""
    state = module_states(kind, graph, module, all_leave)
    index, cost, whole = outside.copy(), np.zeros(len(outside)), outside.copy()
    seen = np.zeros(len(module), np.bool_)
    for u in range(len(module)):
        whole[block[u]] += graph.flow[u]
        if not seen[module[u]]:
            seen[module[u]] = True
            index[block[u]] += state[module[u], INDEX]
            cost[block[u]] += state[module[u], COST]
    for b in range(len(outside)):
        cost[b] += plogp(index[b]) - plogp(outside[b])
        whole[b] = plogp(whole[b]) - plogp(outside[b])
    return cost, whole


@numba.njit(cache=True, nogil=True)
def dissolve(kind, graph, block, outside, module, count):
    """Takes apart each group of modules whose code book costs more than naming its modules one level up.

    ``module`` is changed in place; single moves seldom find this, as the first ones lengthen the code.
    """
    state = module_states(kind, graph, module, graph.leave.sum())
    start, member = members_of(module, count)
    index = outside.copy()
    for a in range(count):
        index[block[member[start[a]]]] += state[a, INDEX]
    new = count
    for a in range(count):
        if start[a + 1] - start[a] == 1:
            continue
        b = block[member[start[a]]]
        change = state[a, FLOW] - state[a, INDEX]
        if plogp(index[b] + change) - plogp(index[b]) - state[a, COST] < -SMALLEST_GAIN:
            index[b] += change
            for i in range(start[a], start[a + 1]):
                module[member[i]] = new
                new += 1


def aggregate(kind: int, graph: Flow, module: np.ndarray, count: int) -> Flow:
    """Modules as nodes."""
    one_array = kind == UNDIRECTED
    indptr, neighbour, out, into = aggregate_links(
        graph.indptr, graph.neighbour, graph.out, graph.into, module, count, one_array
    )
    sums = module_sums(kind, graph, module, count)
    return Flow(indptr, neighbour, out, out if one_array else into, *sums)


def restrict(kind: int, graph: Flow, block: np.ndarray) -> Flow:
    """The same nodes, with the links inside blocks only."""
    one_array = kind == UNDIRECTED
    indptr, neighbour, out, into = restrict_links(
        graph.indptr, graph.neighbour, graph.out, graph.into, block, one_array
    )
    return graph._replace(indptr=indptr, neighbour=neighbour, out=out, into=out if one_array else into)
