"""The random walk on a batch's graph."""

from typing import TYPE_CHECKING, Literal

import torch

from datamodules.batches import GraphBatch

if TYPE_CHECKING:
    from map_equation import Network

# ``map_equation.FlowModel`` again: to take it from there loads Numba, which no other technique uses.
FlowModel = Literal[
    "undirected",
    "directed",
    "directed_recorded",
    "directed_to_nodes",
    "directed_recorded_to_nodes",
    "uniform_recorded",
]


def walk_on(batch: GraphBatch, flow: FlowModel | None, teleportation: float, markov_time: float = 1.0) -> "Network":
    """The walk on a graph; without a flow model it is ``directed`` if the graph is, else ``undirected``.

    A directed walk follows undirected links both ways, as ``map_equation.Network`` does.

    Raises:
        ValueError: if the walk is directed and the graph bipartite, or the Trainer has rounded the links' weights to
            half precision; what ``map_equation.Network`` raises.
    """
    from map_equation import Links, Network

    if batch.bipartite and (flow or "undirected") != "undirected":
        raise ValueError(f"model.flow ({flow}): a bipartite graph takes undirected flow only; leave it out")
    if batch.weights.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"trainer.precision has rounded the weights of the links to {str(batch.weights.dtype).split('.')[1]}, "
            "which makes another graph of it: take bf16-mixed or 32-true"
        )
    links = Links(
        batch.edges.cpu().numpy(),
        batch.weights.cpu().numpy(),
        range(batch.num_nodes),
        directed=batch.directed,
        bipartite=batch.bipartite or None,
        ids=batch.ids,
        states=batch.states,
    )
    return Network(links, flow=flow, teleportation=teleportation, markov_time=markov_time)
