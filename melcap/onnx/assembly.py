"""Join models that were exported one by one into one graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx


def assembled(
    models: Sequence[tuple[onnx.ModelProto, int]],
    graph_input: onnx.ValueInfoProto,
    graph_output: onnx.ValueInfoProto,
) -> onnx.ModelProto:
    """Return one model that runs the models one after the other.

    Initializers of equal content are kept once. Nodes that do not contribute to the result are left
    out. So are the exporter's notes: shapes of values, whose symbols mean something else in each
    model, and stack traces of nodes, which contain paths of this machine.

    Args:
        models: the models, and how many times each runs. The first takes one tensor, each other one
            takes the outputs of the run before it; the first output of the last run is the result.
        graph_input: name, type and shape of the input.
        graph_output: name, type and shape of the output.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: dict[bytes, onnx.TensorProto] = {}
    state = [graph_input.name]
    for place, (model, times) in enumerate(models):
        shared = {
            tensor.name: _kept(tensor, f"{place}.{tensor.name}", initializers)
            for tensor in model.graph.initializer
        }
        for time in range(times):
            inputs = [value.name for value in model.graph.input]
            names = {"": "", **shared, **dict(zip(inputs, state, strict=True))}
            for node in model.graph.node:
                names.update({name: f"{place}.{time}.{name}" for name in node.output if name})
                nodes.append(_renamed(node, f"{place}.{time}.{node.name}", names))
            state = [names[value.name] for value in model.graph.output]

    result = onnx.ModelProto()
    result.CopyFrom(models[0][0])
    result.ClearField("graph")
    result.ClearField("metadata_props")
    graph = result.graph
    graph.name = "melcap"
    graph.input.append(graph_input)
    graph.output.append(graph_output)
    needed, kept = {state[0]}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            names = {name: name for name in (*node.input, *node.output)} | {
                state[0]: graph_output.name
            }
            kept.append(_renamed(node, node.name, names))
    graph.node.extend(reversed(kept))
    graph.initializer.extend(each for each in initializers.values() if each.name in needed)
    onnx.checker.check_model(result)
    return result


def _kept(tensor: onnx.TensorProto, name: str, initializers: dict[bytes, onnx.TensorProto]) -> str:
    """Return the name of the initializer of this content; add it if there is none."""
    own = onnx.TensorProto()
    own.CopyFrom(tensor)
    own.ClearField("metadata_props")
    own.ClearField("doc_string")
    own.ClearField("name")
    content = own.SerializeToString()
    own.name = name
    return initializers.setdefault(content, own).name


def _renamed(node: onnx.NodeProto, name: str, names: dict[str, str]) -> onnx.NodeProto:
    """Return the node with new names for itself, its inputs and its outputs."""
    return onnx.NodeProto(
        name=name,
        domain=node.domain,
        op_type=node.op_type,
        attribute=node.attribute,
        input=[names[each] for each in node.input],
        output=[names[each] for each in node.output],
    )
