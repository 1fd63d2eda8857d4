"""The numbers that every peer starts from: the same weights, inputs and targets in each framework, without a file.

The n-th number of a stream is SplitMix64's mixing function of its place (Steele, Lea & Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014). `burn/src/values.rs` computes the same ones.
"""

from __future__ import annotations

import numpy
import numpy.typing

from peer import Shape

Array = numpy.typing.NDArray[numpy.float32]

INPUTS = 0
TARGETS = 1
HEAD_WEIGHT = 2
HEAD_BIAS = 3
# A layer l has the streams 16·(l + 1) and the three after it.
LAYER = 16
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)
CHUNK = 1 << 22


def bits(stream: int, begin: int, end: int) -> numpy.typing.NDArray[numpy.uint64]:
    """The 64-bit numbers of a stream from `begin` to before `end`."""
    z = (numpy.arange(begin, end, dtype=numpy.uint64) + numpy.uint64(stream << 40)) * GOLDEN
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return z ^ (z >> numpy.uint64(31))


def uniform(stream: int, shape: tuple[int, ...], bound: float) -> Array:
    """Numbers spread evenly over [-bound, bound), of 24 bits each."""
    count = int(numpy.prod(shape))
    out = numpy.empty(count, numpy.float32)
    for begin in range(0, count, CHUNK):
        end = min(begin + CHUNK, count)
        unit = (bits(stream, begin, end) >> numpy.uint64(40)).astype(numpy.float32)
        out[begin:end] = (unit / numpy.float32(1 << 23) - numpy.float32(1)) * numpy.float32(bound)
    return out.reshape(shape)


def bound(shape: Shape) -> float:
    """1/√H, for every weight and bias."""
    return float(numpy.float32(1.0 / numpy.sqrt(shape.hidden)))


def inputs(shape: Shape) -> Array:
    """x `[T, B, I]`, in [-1, 1)."""
    return uniform(INPUTS, (shape.sequence, shape.batch, shape.inputs), 1.0)


def targets(shape: Shape) -> numpy.typing.NDArray[numpy.int64]:
    """A class for each of the T·B steps."""
    return ((bits(TARGETS, 0, shape.tokens) >> numpy.uint64(40)) % numpy.uint64(shape.classes)).astype(numpy.int64)


def layer(shape: Shape, number: int) -> dict[str, Array]:
    """A layer's parameters by PyTorch's names and in its order of gates (i, f, g, o and r, z, n)."""
    rows = shape.gates * shape.hidden
    sizes = ((rows, shape.features(number)), (rows, shape.hidden), (rows,), (rows,))
    first = LAYER * (number + 1)
    return {
        part: uniform(first + index, size, bound(shape)) for index, (part, size) in enumerate(zip(PARTS, sizes, strict=True))
    }


def head(shape: Shape) -> tuple[Array, Array]:
    """Weight `[C, H]` and bias `[C]` of the linear head."""
    weight = uniform(HEAD_WEIGHT, (shape.classes, shape.hidden), bound(shape))
    return weight, uniform(HEAD_BIAS, (shape.classes,), bound(shape))
