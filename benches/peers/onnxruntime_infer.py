#!/usr/bin/env python3
"""The work `infer` of `refrain bench` in ONNX Runtime, on the CPU: a graph with one node RNN, GRU or LSTM a layer."""

from __future__ import annotations

import sys

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import peer
import values
from peer import Prepared, Shape, Unsupported
from values import Array

OPERATORS = {"tanh": "RNN", "gru": "GRU", "lstm": "LSTM"}
# ONNX's order of gates by the places in PyTorch's: LSTM i, o, f, g of i, f, g, o; GRU z, r, n of r, z, n.
GATE_ORDER = {"tanh": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}
OPSET = 14
# Of ONNX's file format; the first with that opset, so that old runtimes read it.
FILE_VERSION = 7
# The small shape at which a graph is held against the equations before it is timed, and the largest difference: a hundred
# times the rounding of f32 at values below 1.
SMALL = {"inputs": 3, "hidden": 5, "batch": 2, "sequence": 4, "layers": 2, "classes": 2}
TOLERANCE = 1e-5


class OnnxRuntime:
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    device = "cpu"
    driver = None
    precision = "f32"

    def __init__(self, threads: int) -> None:
        self.version = onnxruntime.__version__
        self.threads = threads
        self.checked: set[str] = set()

    def prepare(self, shape: Shape, work: str) -> Prepared:
        """A session with the graph of the shape. The first of a cell is held against the equations at a small shape."""
        if work != "infer":
            raise Unsupported(f"it has no {work}: ONNX Runtime only runs forward; --work infer works")
        if shape.cell not in self.checked:
            self.check(shape.cell)
            self.checked.add(shape.cell)
        session = self.session(shape)
        feed = {"x": values.inputs(shape)}

        def run() -> Array:
            return session.run(["y"], feed)[0]

        return Prepared(run, lambda: float(numpy.abs(run().astype(numpy.float64)).mean()))

    def session(self, shape: Shape) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(graph(shape).SerializeToString(), options, providers=["CPUExecutionProvider"])

    def check(self, cell: str) -> None:
        """Raises if the runtime's outputs differ from those of the equations."""
        shape = Shape(cell, **SMALL)
        found = self.session(shape).run(["y"], {"x": values.inputs(shape)})[0]
        difference = float(numpy.abs(found - equations(shape)).max())
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"outputs differ by {difference:.1e} from the equations; {TOLERANCE:.0e} is allowed")


def reorder(cell: str, matrix: Array) -> Array:
    """Rows in PyTorch's order of gates to ONNX's, with the axis of directions in front."""
    blocks = numpy.split(matrix, peer.GATES[cell])
    return numpy.concatenate([blocks[place] for place in GATE_ORDER[cell]])[None]


def graph(shape: Shape) -> onnx.ModelProto:
    """The stack as a model from x `[T, B, I]` to y `[T, B, H]`."""
    nodes: list[onnx.NodeProto] = []
    constants = [numpy_helper.from_array(numpy.array([1], numpy.int64), "direction")]
    attributes = {"linear_before_reset": 1} if shape.cell == "gru" else {}
    read = "x"
    for number in range(shape.layers):
        parts = {part: reorder(shape.cell, numbers) for part, numbers in values.layer(shape, number).items()}
        bias = numpy.concatenate([parts["bias_ih"], parts["bias_hh"]], axis=1)
        for name, numbers in (("w", parts["weight_ih"]), ("r", parts["weight_hh"]), ("b", bias)):
            constants.append(numpy_helper.from_array(numbers, f"{name}{number}"))
        written = "y" if number + 1 == shape.layers else f"y{number}"
        names = [read, f"w{number}", f"r{number}", f"b{number}"]
        nodes.append(helper.make_node(OPERATORS[shape.cell], names, [f"d{number}"], hidden_size=shape.hidden, **attributes))
        # [T, directions, B, H] to [T, B, H].
        nodes.append(helper.make_node("Squeeze", [f"d{number}", "direction"], [written]))
        read = written
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape.sequence, shape.batch, shape.inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape.sequence, shape.batch, shape.hidden])
    body = helper.make_graph(nodes, "stack", [x], [y], constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FILE_VERSION)


def sigmoid(a: Array) -> Array:
    return 1.0 / (1.0 + numpy.exp(-a))


def equations(shape: Shape) -> Array:
    """The stack's outputs by the equations of the cells, step by step in f64."""
    x = values.inputs(shape).astype(numpy.float64)
    for number in range(shape.layers):
        w, r, b, d = (part.astype(numpy.float64) for part in values.layer(shape, number).values())
        h = numpy.zeros((shape.batch, shape.hidden))
        c = numpy.zeros_like(h)
        outputs = []
        for step in x:
            given = numpy.split(step @ w.T + b, shape.gates, axis=1)
            kept = numpy.split(h @ r.T + d, shape.gates, axis=1)
            if shape.cell == "tanh":
                h = numpy.tanh(given[0] + kept[0])
            elif shape.cell == "gru":
                reset, update = (sigmoid(given[gate] + kept[gate]) for gate in range(2))
                h = (1.0 - update) * numpy.tanh(given[2] + reset * kept[2]) + update * h
            else:
                enter, forget, leave = (sigmoid(given[gate] + kept[gate]) for gate in (0, 1, 3))
                c = forget * c + enter * numpy.tanh(given[2] + kept[2])
                h = leave * numpy.tanh(c)
            outputs.append(h)
        x = numpy.stack(outputs)
    return x


def main() -> int:
    parser = peer.arguments(__doc__ or "", ("cpu",), ("f32",), ("infer",))
    options = parser.parse_args()
    return peer.bench(OnnxRuntime(options.threads), parser, options)


if __name__ == "__main__":
    sys.exit(main())
