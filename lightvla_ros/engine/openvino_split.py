"""Cuts ``encode`` in two where the pruner's scores begin, so that the scores can stay in fp32.

OpenVINO has an attribute that keeps the precision of a single node, but it is internal and was
renamed between releases.
"""

from __future__ import annotations

from collections.abc import Iterable

import openvino as ov

LAYERS = ('MatMul', 'Convolution')  # a layer with weights has a constant as its second input


def split_at_scores(encode: ov.Model) -> list[ov.Model]:
    """Cut the graph in two where the pruner's scores begin.

    The model passed in is modified and must not be used afterwards.

    The scores are all nodes between the last layers with weights and ``kept``. The second half
    consists of the scores and everything that depends on them, down to the sorted tokens.

    :returns: Both halves, or the whole graph if nothing is pruned. Each output of the first half
        that the second half reads has the same names in both.
    """
    nodes = encode.get_ordered_ops()
    given = encode.get_parameters()
    varying = _descendants(nodes, given)  # the rest are weights and other constants
    kept = [each for each in encode.get_results() if 'kept' in each.input_value(0).get_names()]
    leading = _ancestors(nodes, kept) & varying
    layers = [each for each in nodes if each.get_name() in leading and _has_weights(each, varying)]
    scores = leading - _ancestors(nodes, [*given, *layers])
    if not scores:
        return [encode]
    second = _descendants(nodes, [each for each in nodes if each.get_name() in scores])
    new_results, new_parameters = [], []
    for output in [each for node in nodes for each in node.outputs()]:
        name = output.get_node().get_name()
        takers = [each for each in output.get_target_inputs() if _owner(each) in second]
        if name in second or name not in varying or not takers:
            continue
        if not output.get_names():
            output.add_names({name})
        parameter = ov.op.Parameter(output.get_element_type(), output.get_partial_shape())
        parameter.output(0).set_names(output.get_names())
        for each in takers:
            each.replace_source_output(parameter.output(0))
        new_parameters.append(parameter)
        if output.get_node() not in given:
            new_results.append(ov.op.Result(output))
    results = encode.get_results()
    first = [each for each in results if each.get_name() not in second]
    used = [each for each in given if each.output(0).get_target_inputs()]
    return [
        ov.Model([*first, *new_results], used, 'features'),
        ov.Model([e for e in results if e.get_name() in second], new_parameters, 'choice'),
    ]


def _has_weights(node: ov.Node, varying: set[str]) -> bool:
    return node.get_type_name() in LAYERS and _sources(node)[1] not in varying


def _descendants(nodes: list[ov.Node], first: Iterable[ov.Node]) -> set[str]:
    """Return the names of the nodes in ``first`` and of all that depend on them."""
    found = {each.get_name() for each in first}
    for node in nodes:  # sources come first
        if not found.isdisjoint(_sources(node)):
            found.add(node.get_name())
    return found


def _ancestors(nodes: list[ov.Node], last: Iterable[ov.Node]) -> set[str]:
    """Return the names of the nodes in ``last`` and of all that they depend on."""
    found = {each.get_name() for each in last}
    for node in reversed(nodes):
        if node.get_name() in found:
            found.update(_sources(node))
    return found


def _sources(node: ov.Node) -> list[str]:
    return [each.get_node().get_name() for each in node.input_values()]


def _owner(place: ov.Input) -> str:
    return place.get_node().get_name()
