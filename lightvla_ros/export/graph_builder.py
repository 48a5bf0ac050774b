"""Writing an ONNX graph as one writes NumPy: ``y = g.op('MatMul', x, weight)``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


class GraphBuilder:
    """Collects nodes, constants, inputs and outputs of one graph. Values are their names."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: TensorProto.DataType, shape: list[int | str]) -> str:
        """Declare an input; a string in ``shape`` names a dynamic size."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(
        self, name: str, value: str, kind: TensorProto.DataType, shape: list[int | str]
    ) -> None:
        """Declare ``value`` as an output under ``name``."""
        self._nodes.append(helper.make_node('Identity', [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def op(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; inputs are values or arrays. Returns its output, or a tuple of several."""
        names = [f'{kind}_{len(self._nodes)}_{index}' for index in range(outputs)]
        values = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self._nodes.append(helper.make_node(kind, values, names, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def build(self) -> onnx.ModelProto:
        """Return the checked model."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, self._constants
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=9
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _constant(self, value: np.ndarray | list | float) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f'constant_{len(self._constants)}'
        self._constants.append(numpy_helper.from_array(array, name))
        return name
