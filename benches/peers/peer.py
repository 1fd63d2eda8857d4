"""What the peers share: the shapes and their flags, the timing, the line of JSON. Standard library only.

A peer does the work of `refrain bench` in another framework and prints the same line for each shape. The work, the fields
and what is fair in them are described in README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

GATES = {"tanh": 1, "gru": 3, "lstm": 4}
WORKS = ("infer", "backward", "train")
PRECISIONS = ("f32", "tf32", "f16-autocast")

GRID_HIDDEN = (64, 128, 256, 512, 1024)
GRID_BATCH = (1, 16, 64, 256)
GRID_SEQUENCE = (64, 512)
GRID_LAYERS = (1, 2)

WARM_UP_RUNS = 3
WARM_UP_SECONDS = 0.2
MOST_RUNS = 100

CLIP_NORM = 1.0
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Shape:
    """A stack of `layers` recurrent layers in one direction, and the batch that it is given."""

    cell: str
    inputs: int
    hidden: int
    batch: int
    sequence: int
    layers: int
    classes: int

    def __post_init__(self) -> None:
        if self.cell not in GATES:
            raise ValueError(f"a cell is one of {', '.join(GATES)}, not {self.cell}")
        for name in ("inputs", "hidden", "batch", "sequence", "layers", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def gates(self) -> int:
        """Blocks of `hidden` rows in a weight matrix."""
        return GATES[self.cell]

    @property
    def tokens(self) -> int:
        """T·B."""
        return self.sequence * self.batch

    def features(self, layer: int) -> int:
        """Features that a layer reads: I for the first, H for the others."""
        return self.inputs if layer == 0 else self.hidden


def grid() -> Iterator[Shape]:
    """The standard grid: 240 shapes, with as many inputs as hidden units."""
    for cell, hidden, batch, sequence, layers in product(GATES, GRID_HIDDEN, GRID_BATCH, GRID_SEQUENCE, GRID_LAYERS):
        yield Shape(cell, hidden, hidden, batch, sequence, layers, classes=64)


def operations(shape: Shape, work: str) -> float:
    """Floating-point operations of one run; a multiply-add counts as two. Only products of matrices are counted.

    Forward, a layer has 2·T·B·G·H·(I + H), and backward twice that; `train` computes no gradient of x.
    The head has 2·T·B·H·C forward and three times that in `train`.
    """
    per_token = 2 * shape.gates * shape.hidden
    forward = sum(per_token * (shape.features(layer) + shape.hidden) for layer in range(shape.layers))
    if work == "infer":
        each = forward
    elif work == "backward":
        each = 3 * forward
    else:
        each = 3 * forward - per_token * shape.inputs + 3 * 2 * shape.hidden * shape.classes
    return float(shape.tokens) * each


@dataclass(frozen=True)
class Timing:
    """Milliseconds of the timed runs."""

    runs: int
    median: float
    minimum: float
    spread: float
    """Distance of the quartiles, by the median."""


def summarize(milliseconds: Sequence[float]) -> Timing:
    """Median, minimum and spread of at least one measurement."""
    median = statistics.median(milliseconds)
    spread = 0.0
    if len(milliseconds) > 1:
        lower, _, upper = statistics.quantiles(milliseconds, n=4, method="inclusive")
        spread = (upper - lower) / median
    return Timing(len(milliseconds), median, min(milliseconds), spread)


def measure(run: Callable[[], object], runs: int, seconds: float) -> Timing:
    """Times `run` after a warm-up, until both `runs` and `seconds` are reached or there were 100 runs.

    `run` waits for its device, so that the wall clock counts all of its work.
    """
    begin = time.perf_counter()
    warm = 0
    while warm < WARM_UP_RUNS or time.perf_counter() - begin < WARM_UP_SECONDS:
        run()
        warm += 1
    milliseconds: list[float] = []
    begin = time.perf_counter()
    while len(milliseconds) < runs or (time.perf_counter() - begin < seconds and len(milliseconds) < MOST_RUNS):
        start = time.perf_counter()
        run()
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return summarize(milliseconds)


@dataclass(frozen=True)
class Prepared:
    """One shape's work, ready to run: weights and data are on the device."""

    run: Callable[[], object]
    """Does the work once and waits for it."""
    checksum: Callable[[], float]
    """Runs the work on its first values and condenses its result; see README.md. Called once, before `run`."""
    allocated: Callable[[], int | None] = lambda: None
    """The most bytes that the device held during the runs, where the framework tells."""


class Framework(Protocol):
    """A framework on one device with one precision."""

    name: str
    version: str
    device: str
    driver: str | None
    precision: str
    threads: int | None

    def prepare(self, shape: Shape, work: str) -> Prepared:
        """Builds the stack, its data and what the work needs. Raises `Unsupported` for work it cannot do."""
        ...


class Unsupported(Exception):
    """What was asked for cannot be done by this peer on this machine; the message says what could."""


class Failed(Exception):
    """A shape could not be measured."""


def line(
    framework: Framework, shape: Shape, work: str, timing: Timing, checksum: float, allocated: int | None
) -> dict[str, object]:
    """The fields of one result, in the order in which `refrain bench --json` prints them."""
    seconds = timing.median / 1e3
    return {
        "framework": framework.name,
        "version": framework.version,
        "device": framework.device,
        "driver": framework.driver,
        "precision": framework.precision,
        "threads": framework.threads,
        "work": work,
        "cell": shape.cell,
        "inputs": shape.inputs,
        "hidden": shape.hidden,
        "batch": shape.batch,
        "sequence": shape.sequence,
        "layers": shape.layers,
        "classes": shape.classes,
        "runs": timing.runs,
        "milliseconds": timing.median,
        "minimum": timing.minimum,
        "spread": timing.spread,
        "microseconds_per_step": timing.median * 1e3 / shape.sequence,
        "tokens_per_second": shape.tokens / seconds,
        "gflops": operations(shape, work) / seconds / 1e9,
        "checksum": checksum,
        "gemm_fraction": None,
        "bandwidth_fraction": None,
        "dispatches_per_step": None,
        "host_microseconds_per_step": None,
        "bytes": allocated,
        "formula_bytes": None,
        "tuning": None,
        "recurrent": None,
    }


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def arguments(
    description: str, devices: Sequence[str], precisions: Sequence[str], works: Sequence[str]
) -> argparse.ArgumentParser:
    """The flags that every peer takes; they are those of `refrain bench`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--precision", choices=precisions, default=precisions[0])
    parser.add_argument("--work", choices=works, default=works[-1], help="what one run does; see README.md")
    parser.add_argument("--cell", choices=tuple(GATES), default="lstm")
    parser.add_argument("--hidden", type=positive, default=256, metavar="H")
    parser.add_argument("--batch", type=positive, default=64, metavar="B")
    parser.add_argument("--sequence", type=positive, default=128, metavar="T")
    parser.add_argument("--layers", type=positive, default=1, metavar="L")
    parser.add_argument("--inputs", type=positive, metavar="I", help="features of the input; H without it")
    parser.add_argument("--classes", type=positive, default=64, metavar="C", help="classes of the linear head in train")
    parser.add_argument("--grid", action="store_true", help="every shape of the standard grid instead of one")
    parser.add_argument("--runs", type=positive, default=10, help="time at least so many runs")
    parser.add_argument("--seconds", type=float, default=1.0, help="and at least so long, but at most 100 runs")
    parser.add_argument("--threads", type=positive, default=cores(), help="threads on the CPU; all cores without it")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each shape")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="read a line of flags from standard input, answer it by a line of JSON, and so on; device, precision and "
        "threads stay those of the command line",
    )
    return parser


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def shapes(options: argparse.Namespace) -> list[Shape]:
    """The shapes that the flags ask for."""
    if options.grid:
        return [replace(shape, classes=options.classes) for shape in grid()]
    inputs = options.inputs or options.hidden
    return [Shape(options.cell, inputs, options.hidden, options.batch, options.sequence, options.layers, options.classes)]


def result(framework: Framework, shape: Shape, options: argparse.Namespace) -> dict[str, object]:
    """Measures one shape. Raises `Failed` with a message for a person."""
    try:
        prepared = framework.prepare(shape, options.work)
        checksum = prepared.checksum()
        if not math.isfinite(checksum):
            raise ArithmeticError(f"the checksum is {checksum}")
        timing = measure(prepared.run, options.runs, options.seconds)
        return line(framework, shape, options.work, timing, checksum, prepared.allocated())
    except (Unsupported, ArithmeticError, MemoryError, RuntimeError) as error:
        raise Failed(f"{framework.name}: {options.work} of {shape}: {error}") from error


def bench(framework: Framework, parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Measures what the flags ask for. Returns the exit code: 1 if a shape failed, which it says on standard error."""
    if options.serve:
        serve(framework, parser)
        return 0
    code = 0
    for shape in shapes(options):
        try:
            found = result(framework, shape, options)
        except Failed as error:
            print(error, file=sys.stderr)
            code = 1
            continue
        print(json.dumps(found) if options.json else sentence(found), flush=True)
    return code


def serve(framework: Framework, parser: argparse.ArgumentParser) -> None:
    """Answers each line of flags on standard input by one line: a result, or an object with `error`."""
    for text in sys.stdin:
        options = parser.parse_args(shlex.split(text))
        try:
            answer = result(framework, shapes(options)[0], options)
        except Failed as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def sentence(found: dict[str, object]) -> str:
    """A result for a person to read."""
    return (
        "{framework} {version} on {device} ({precision}, {threads} threads): {work} {cell} T={sequence} B={batch} I={inputs} "
        "H={hidden} L={layers}: {milliseconds:.3f} ms (minimum {minimum:.3f}, spread {spread:.1%}, {runs} runs), "
        "{gflops:.1f} GFLOP/s, checksum {checksum:.6g}"
    ).format(**found)
