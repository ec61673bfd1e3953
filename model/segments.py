"""Cuts a functional model into segments, between which activations are kept for training.

A convolution's output takes a whole convolution to compute again; that of a batch norm, activation
or gate only a pass over the data. So a segment ends with each convolution whose output then is all
that the rest of the model needs from it.

A whole block can be one segment, which keeps the block's input only. Its second pass would keep
all of its activations at once. So the blocks with the largest maps are cut in the same way into
parts for the second pass. In smaller ones that would take time, and would not lower the peak.

Frozen layers before the first trainable one have no backward pass, so nothing is kept of them. They
are one segment, which runs as in the plain model: TensorFlow then fuses their convolutions with
batch norms, which changes the last bits on some processors.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import Any

import keras

from convoy.model.catalog import BLOCK
from convoy.model.layers import Fork
from convoy.model.map_sizes import map_sizes

_HEAVY = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_LARGE = 0.6
"""A block is cut into parts if its convolutions return this share of what the largest's do.

Of ten architectures, the foreseen peak is then at most 1.5 % above that with parts in all blocks.
"""
_SOME_SIZE = 224
"""Side of images for comparing the blocks of a model of any size."""


class Segment:
    """Consecutive operations of a model.

    Attributes:
        nodes: Keras' nodes, in the order to compute them.
        inputs, outputs: the model's symbolic tensors that enter and leave the segment.
        variables: Keras variables of its layers, with the states of seed generators.
        drops: whether a tensor stays inside that the backward pass would need.
        parts: of a large block, segments that keep its convolutions' outputs; otherwise none.
        waits: whether all its gradients are to be there before an earlier segment's begin, which
            saves memory: for whole blocks and their parts.
        frozen: whether it has no backward pass.

    Args:
        nodes, parts, waits, frozen: see above.
        needed: ids of the tensors that are needed after the segment.
    """

    def __init__(
        self,
        nodes: Sequence[Any],
        needed: Collection[int],
        waits: bool,
        parts: Sequence[Segment] = (),
        frozen: bool = False,
    ) -> None:
        self.nodes, self.waits, self.parts, self.frozen = nodes, waits, parts, frozen
        made = {id(tensor): tensor for node in nodes for tensor in node.outputs}
        entering = {
            id(tensor): tensor
            for node in nodes
            for tensor in node.input_tensors
            if id(tensor) not in made
        }
        self.inputs = list(entering.values())
        self.outputs = [tensor for key, tensor in made.items() if key in needed]
        layers = {id(node.operation): node.operation for node in nodes}.values()
        owned = {id(v): v for layer in layers for v in getattr(layer, "variables", ())}
        self.variables = list(owned.values())
        self.drops = len(self.outputs) < len(made) and not frozen

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Computes the outputs in training mode from the inputs' values."""
        found = {id(tensor): value for tensor, value in zip(self.inputs, values, strict=True)}
        for node in self.nodes:
            args, named = node.arguments.fill_in(found)
            if _knows_training(node.operation):
                named["training"] = True
            results = keras.tree.flatten(node.operation(*args, **named))
            found |= {id(t): value for t, value in zip(node.outputs, results, strict=True)}
        return [found[id(tensor)] for tensor in self.outputs]


def _knows_training(operation: Any) -> bool:
    known = getattr(operation, "_call_has_training_arg", None)
    if callable(known):
        return known()
    return bool(known) or "training" in getattr(operation, "_call_context_args", ())


def segments(model: keras.Model, whole: Collection[str] = ()) -> list[Segment]:
    """Cuts a model into segments, in the order to run them.

    Args:
        model: a functional model, with the layers frozen that the training is to leave alone.
        whole: names of blocks, such as "block2a", that make one segment each.
    """
    frozen, rest = _split(_ordered(model))
    nodes = [*frozen, *rest]
    last = {id(t): place for place, node in enumerate(nodes) for t in node.input_tensors}
    last |= {id(tensor): len(nodes) for tensor in model.outputs}
    blocks = _blocks(nodes)
    large = _large(model, nodes, blocks)
    cheap_to_keep = {id(t) for node in nodes if _keeps(node.operation) for t in node.outputs}
    found: list[Segment] = []
    parts: list[Segment] = []
    start = part_start = len(frozen)
    live = {id(t) for node in frozen for t in node.outputs if last.get(id(t), -1) >= start}
    if frozen:
        found.append(Segment(frozen, live, False, frozen=True))
        cheap_to_keep |= live
    for place, node in enumerate(nodes[start:], start):
        live |= {id(tensor) for tensor in node.outputs}
        live -= {
            id(tensor)
            for tensor in (*node.outputs, *node.input_tensors)
            if last.get(id(tensor), -1) <= place
        }
        block_ends = place + 1 == len(nodes) or blocks[place] != blocks[place + 1]
        if not block_ends and not (isinstance(node.operation, _HEAVY) and live <= cheap_to_keep):
            continue
        cheap_to_keep |= live
        in_whole = blocks[place] in whole
        parts.append(Segment(nodes[part_start : place + 1], live, in_whole))
        part_start = place + 1
        if not in_whole:
            found += parts
        elif block_ends:
            inside = parts if blocks[place] in large else ()
            found.append(Segment(nodes[start : place + 1], live, True, inside))
        else:
            continue
        parts, start = [], place + 1
    return found


def _split(nodes: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the nodes before the first trainable ones, if some of their layers have weights.

    Without any, such as the stem's normalization, the first convolution's segment has them: images
    of 8 bits are then kept, not their normalised numbers.

    Args:
        nodes: in the order to compute them.

    Returns:
        These nodes, and all others, each in the same order.
    """
    trained: set[int] = set()
    parts: tuple[list[Any], list[Any]] = [], []
    for node in nodes:
        learns = bool(getattr(node.operation, "trainable_variables", ()))
        learns |= not trained.isdisjoint(map(id, node.input_tensors))
        trained |= {id(tensor) for tensor in node.outputs if learns}
        parts[learns].append(node)
    if any(getattr(node.operation, "weights", ()) for node in parts[0]):
        return parts
    return [], list(nodes)


def _keeps(operation: Any) -> bool:
    """Returns whether its outputs are worth keeping: a fork's are its input."""
    return isinstance(operation, (*_HEAVY, Fork))


def _blocks(nodes: Sequence[Any]) -> list[str]:
    """Returns the name of each node's block, or "" outside of blocks.

    What follows the stem's convolution belongs to the first block, whose input is then that
    convolution's output: of a batch norm and its result, only one is kept.
    """
    matches = [BLOCK.match(node.operation.name) for node in nodes]
    names = [match[1] if match else "" for match in matches]
    first = next((place for place, name in enumerate(names) if name), 0)
    for place in reversed(range(first)):
        if isinstance(nodes[place].operation, _HEAVY):
            break
        names[place] = names[first]
    return names


def _large(model: keras.Model, nodes: Sequence[Any], blocks: Sequence[str]) -> set[str]:
    """Returns the names of the blocks with the largest maps."""
    sizes = map_sizes(model, nodes, _SOME_SIZE)
    found = dict.fromkeys(blocks, 0)
    for node, block in zip(nodes, blocks, strict=True):
        if block and isinstance(node.operation, _HEAVY):
            found[block] += sum(sizes[id(tensor)] for tensor in node.outputs)
    return {block for block, size in found.items() if size >= _LARGE * max(found.values())}


def _ordered(model: keras.Model) -> list[Any]:
    """Returns a model's nodes: convolutions as early as possible, and others as late.

    A shortcut's convolution then comes before its block's batch norms, and can end a segment.
    """
    depths = model._nodes_by_depth
    nodes = [n for depth in sorted(depths, reverse=True) for n in depths[depth] if not n.is_input]
    users: dict[int, list[int]] = {}
    waits = [0] * len(nodes)
    given = {id(tensor) for tensor in model.inputs}
    for place, node in enumerate(nodes):
        for key in {id(tensor) for tensor in node.input_tensors} - given:
            users.setdefault(key, []).append(place)
            waits[place] += 1
    ready = [(not isinstance(nodes[p].operation, _HEAVY), p) for p, n in enumerate(waits) if not n]
    heapq.heapify(ready)
    ordered = []
    while ready:
        node = nodes[heapq.heappop(ready)[1]]
        ordered.append(node)
        for user in (user for t in node.outputs for user in users.get(id(t), ())):
            waits[user] -= 1
            if not waits[user]:
                heapq.heappush(ready, (not isinstance(nodes[user].operation, _HEAVY), user))
    return ordered
