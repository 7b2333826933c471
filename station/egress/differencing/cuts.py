"""The fewest patients on whom anything depends that follows from the numbers of two tables, by adding and subtracting.

Each table tells numbers of disjoint sets of patients (its cells). Whoever holds both takes any combination of their numbers:
cells, unions of cells, differences of unions. A patient in cell i of one table and cell j of the other counts in it a_i + b_j
times. Cells are the nodes of a graph here, patients its edges; a patient whom only one table tells of is an edge to one node
more, which stands for nobody. With b turned round, a combination gives every node a number, and it leaves out just those
patients whose two nodes have the same. So the patients that it depends on hold a cut of the graph, and every cut is what some
combination (nodes on one side 1, the others 0) depends on: the smallest cut that is not empty is the fewest patients that
any combination isolates.

Whether there is a cut below a minimum is asked by scanning the graph in the order of Nagamochi and Ibaraki (1992): what hangs
together by the minimum is one node from then on. Each scan finds a cut below the minimum or makes nodes one, so there are no
more scans than nodes; Stoer and Wagner (1997) have the proof in short.
"""

import heapq
from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

NOBODY: Final = -1
"""The cell of a patient of whom a table tells nothing."""

Graph = dict[int, dict[int, int]]


def fewest_isolated(one: NDArray[np.int32], other: NDArray[np.int32], minimum: int) -> int | None:
    """Return a number of patients, 1 to (minimum - 1), that a combination of two tables' numbers isolates; None where there is none.

    Args:
        one: the cell of each patient in the first table, or `NOBODY`. Shape (patients,).
        other: likewise in the second; the same patients in the same order.
        minimum: the fewest patients that anything told may depend on.

    >>> below_half, to_051 = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1])
    >>> fewest_isolated(below_half.astype(np.int32), to_051.astype(np.int32), 2)
    1
    """
    graph = _graph(one, other)
    while graph:
        found = _scan(graph, minimum)
        if isinstance(found, int):
            return found
        graph = found
    return None


def _graph(one: NDArray[np.int32], other: NDArray[np.int32]) -> Graph:
    """Return who hangs together by how many patients: node 0 is nobody, then the cells of one, then the other's."""
    left = np.where(one == NOBODY, 0, one.astype(np.int64) + 1)
    right = np.where(other == NOBODY, 0, other.astype(np.int64) + 1)
    codes, counts = np.unique((left << 32) | right, return_counts=True)
    graph: Graph = defaultdict(dict)
    for code, patients in zip(codes.tolist(), counts.tolist(), strict=True):
        node, neighbour = code >> 32, -(code & 0xFFFFFFFF)
        if node != neighbour:
            graph[node][neighbour] = graph[neighbour][node] = patients
    return dict(graph)


def _scan(graph: Graph, minimum: int) -> Graph | int:
    """Scan every part once; return a cut below the minimum, or the graph with what hangs together made one."""
    group = {node: node for node in graph}

    def find(node: int) -> int:
        while group[node] != node:
            group[node] = group[group[node]]
            node = group[node]
        return node

    waiting = set(graph)
    while waiting:
        start = min(waiting)
        reach = {start: 0}
        heap = [(0, start)]
        last = 0
        while heap:
            strength, node = heapq.heappop(heap)
            if node not in waiting or -strength != reach[node]:
                continue
            waiting.discard(node)
            last = reach[node]
            for neighbour, patients in graph[node].items():
                if neighbour in waiting:
                    reach[neighbour] = reach.get(neighbour, 0) + patients
                    if reach[neighbour] >= minimum:
                        group[find(neighbour)] = find(node)
                    heapq.heappush(heap, (-reach[neighbour], neighbour))
        # All that holds the node scanned last to the rest of its part: the cut of the phase.
        if 0 < last < minimum:
            return last
    return _merged(graph, {node: find(node) for node in graph})


def _merged(graph: Graph, group: dict[int, int]) -> Graph:
    merged: Graph = defaultdict(dict)
    for node, neighbours in graph.items():
        for neighbour, patients in neighbours.items():
            left, right = group[node], group[neighbour]
            if left != right:
                merged[left][right] = merged[left].get(right, 0) + patients
    return dict(merged)
