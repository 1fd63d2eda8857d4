"""Holds the peers to the schema and to each other, at tiny shapes, and the comparison to what it promises.

    benches/peers/.venv/bin/python -m unittest discover -s benches/peers

A peer whose packages are missing is skipped, and the output says so. `BURN_PEER=PATH` names a built burn-peer to be tested too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

import comparison
import peer
from comparison import Contender, Result
from peer import Failed, Shape

HERE = Path(__file__).resolve().parent
TINY = Shape("lstm", inputs=3, hidden=5, batch=2, sequence=4, layers=2, classes=6)
ONCE = ["--runs", "2", "--seconds", "0"]

FIELDS: dict[str, type | tuple[type, ...]] = {
    "framework": str,
    "version": str,
    "device": str,
    "driver": (str, type(None)),
    "precision": str,
    "work": str,
    "cell": str,
    **dict.fromkeys(("inputs", "hidden", "batch", "sequence", "layers", "classes", "runs"), int),
    **dict.fromkeys(("milliseconds", "minimum", "spread", "microseconds_per_step", "tokens_per_second", "gflops"), float),
    "checksum": float,
    **dict.fromkeys(("gemm_fraction", "bandwidth_fraction", "dispatches_per_step", "host_microseconds_per_step"), type(None)),
    "bytes": (int, type(None)),
    **dict.fromkeys(("formula_bytes", "tuning", "recurrent"), type(None)),
}

# A refrain of a few lines: it lists a CPU and answers `bench` by the line that is asked for, after some milliseconds.
STAND_IN = """
    #!{python}
    import sys, time
    sys.path.insert(0, {here!r})
    import peer

    class Fake:
        name, version, device, driver, precision, threads = "refrain", "0", "cpu", None, "f32", 1

        def prepare(self, shape, work):
            # Of the size of the peers' checksums at the shape that is asked for first.
            size = {{"infer": 0.047, "train": 2.3}}[work]
            return peer.Prepared(lambda: time.sleep(0.002), lambda: size * {factor})

    if sys.argv[1] == "devices":
        print("cpu         32-bit floats")
        print("auto takes  cpu (the first hardware GPU, or else the CPU)")
    else:
        parser = peer.arguments("", ("cpu",), ("f32",), peer.WORKS)
        sys.exit(peer.bench(Fake(), parser, parser.parse_args(sys.argv[2:])))
"""


def missing(*modules: str) -> bool:
    return any(importlib.util.find_spec(module) is None for module in modules)


def small_shapes() -> list[Shape]:
    return [Shape(cell, 3, 5, 2, 4, 2, 6) for cell in peer.GATES]


class Peers(unittest.TestCase):
    """Each peer's own line, and the agreement of all."""

    def check(self, contender: Contender, work: str, shape: Shape = TINY) -> float:
        """Asks a peer once, holds its line to the schema, and returns the checksum."""
        found = contender.ask(shape, work, ONCE, 120)
        for name, kind in FIELDS.items():
            self.assertIn(name, found)
            self.assertIsInstance(found[name], kind, name)
        self.assertEqual(found["runs"], 2)
        self.assertLessEqual(found["minimum"], found["milliseconds"])
        self.assertAlmostEqual(found["microseconds_per_step"], found["milliseconds"] * 1e3 / shape.sequence)
        return float(str(found["checksum"]))

    def contender(self, *command: str, served: bool = True) -> Contender:
        contender = Contender(Path(command[-1]).stem, command, "", peer.WORKS, served)
        self.addCleanup(contender.stop)
        return contender

    def pytorch(self) -> Contender:
        return self.contender(sys.executable, str(HERE / "pytorch.py"))

    @unittest.skipIf(missing("numpy", "torch"), "PyTorch is not installed")
    def test_pytorch_prints_the_schema_for_every_work_and_cell(self) -> None:
        pytorch = self.pytorch()
        for shape in small_shapes():
            for work in peer.WORKS:
                with self.subTest(cell=shape.cell, work=work):
                    self.assertGreater(self.check(pytorch, work, shape), 0.0)

    @unittest.skipIf(missing("numpy", "torch", "onnx", "onnxruntime"), "PyTorch or ONNX Runtime is not installed")
    def test_onnxruntime_does_what_pytorch_does(self) -> None:
        pytorch, runtime = self.pytorch(), self.contender(sys.executable, str(HERE / "onnxruntime_infer.py"))
        for shape in small_shapes():
            with self.subTest(cell=shape.cell):
                ratio = self.check(runtime, "infer", shape) / self.check(pytorch, "infer", shape)
                self.assertAlmostEqual(ratio, 1.0, delta=comparison.AGREEMENT["f32"])

    @unittest.skipIf("BURN_PEER" not in os.environ, "BURN_PEER names no program")
    @unittest.skipIf(missing("numpy", "torch"), "PyTorch is not installed")
    def test_burn_does_what_pytorch_does(self) -> None:
        pytorch, burn = self.pytorch(), self.contender(os.environ["BURN_PEER"], served=False)
        for shape in small_shapes():
            for work in peer.WORKS:
                with self.subTest(cell=shape.cell, work=work):
                    ratio = self.check(burn, work, shape) / self.check(pytorch, work, shape)
                    self.assertAlmostEqual(ratio, 1.0, delta=comparison.AGREEMENT["f32"])

    @unittest.skipIf(missing("numpy"), "NumPy is not installed")
    def test_numbers_are_those_of_splitmix64(self) -> None:
        import values

        # The first three outputs of the generator from a seed of 0, whose first state is one increment further.
        expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
        self.assertEqual(values.bits(0, 1, 4).tolist(), expected)
        x = values.uniform(7, (100, 100), 0.5)
        self.assertTrue((abs(x) <= 0.5).all())
        self.assertAlmostEqual(float(x.mean()), 0.0, delta=0.5 / 100)
        self.assertAlmostEqual(float((x * x).mean()), 0.25 / 3, delta=0.002)

    def test_a_peer_serves_several_questions_from_one_process(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            served = self.contender(sys.executable, stand_in(folder), "bench")
            first = served.ask(TINY, "train", ONCE, 60)
            process = served.process
            self.assertIsNotNone(process)
            second = served.ask(Shape("gru", 1, 2, 3, 4, 1, 5), "infer", ONCE, 60)
            self.assertEqual((first["cell"], second["cell"]), ("lstm", "gru"))
            self.assertIs(served.process, process)

    def test_a_process_of_its_own_prints_the_same_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            once = self.contender(sys.executable, stand_in(folder), "bench", served=False)
            self.assertEqual(once.ask(TINY, "train", ONCE, 60)["cell"], "lstm")


class Measures(unittest.TestCase):
    """What is computed from the times."""

    def test_operations_are_those_of_the_products(self) -> None:
        shape = Shape("gru", inputs=2, hidden=3, batch=5, sequence=7, layers=2, classes=11)
        forward = 2 * 35 * 9 * (2 + 3) + 2 * 35 * 9 * (3 + 3)
        self.assertEqual(peer.operations(shape, "infer"), forward)
        self.assertEqual(peer.operations(shape, "backward"), 3 * forward)
        self.assertEqual(peer.operations(shape, "train"), 3 * forward - 2 * 35 * 9 * 2 + 3 * 2 * 35 * 3 * 11)

    def test_the_grid_has_every_combination_once(self) -> None:
        shapes = list(peer.grid())
        self.assertEqual(len(set(shapes)), 240)
        self.assertEqual(len(shapes), 240)

    def test_summary_has_median_minimum_and_distance_of_quartiles(self) -> None:
        timing = peer.summarize([4.0, 1.0, 3.0, 2.0, 5.0])
        self.assertEqual((timing.median, timing.minimum, timing.spread, timing.runs), (3.0, 1.0, 2.0 / 3.0, 5))

    def test_measuring_reaches_the_runs_that_are_asked_for_after_a_warm_up(self) -> None:
        calls: list[int] = []
        timing = peer.measure(lambda: calls.append(1), runs=7, seconds=0.0)
        self.assertEqual(timing.runs, 7)
        self.assertGreaterEqual(len(calls), 7 + peer.WARM_UP_RUNS)

    def test_ratio_is_the_peers_median_by_ours(self) -> None:
        result = Result(TINY, "train", {"refrain": [2.0, 1.0, 3.0], "peer": [8.0, 3.0, 5.0]})
        self.assertEqual(result.ratio("peer"), 2.5)
        self.assertEqual(result.drift(), 3.0)
        self.assertIn("| 5.00 (**2.50**) |", comparison.table([result], ["refrain", "peer"], "train"))

    def test_memory_is_compared_where_both_tell_of_it(self) -> None:
        silent = Result(TINY, "train", {}, memory={"refrain": (3_000_000, "formula")})
        both = Result(TINY, "train", {}, memory={"refrain": (2_000_000, "measured"), "peer": (5_000_000, "measured")})
        self.assertIsNone(comparison.memory_table([silent], ["refrain", "peer"], "train"))
        self.assertIsNone(comparison.memory_table([both], ["refrain", "peer"], "infer"))
        table = comparison.memory_table([silent, both], ["refrain", "peer"], "train")
        assert table is not None
        self.assertEqual(len(table.splitlines()), 3)
        self.assertIn("refrain MB (measured)", table)
        self.assertIn("| 2.00 | 5.00 (**2.50**) |", table)

    @unittest.skipIf(missing("numpy", "torch"), "PyTorch is not installed")
    def test_the_memory_of_a_run_is_the_most_that_its_tensors_hold_at_once(self) -> None:
        import pytorch
        import torch

        def run() -> None:
            one = torch.ones(1000)
            two = torch.neg(one)
            del one
            three = torch.neg(two)
            del two, three
            torch.ones(500)

        self.assertEqual(pytorch.most_allocated(run), 2 * 4 * 1000)

    def test_numbers_keep_three_digits(self) -> None:
        self.assertEqual([comparison.number(n) for n in (0.01234, 1.234, 56.78, 1234.5)], ["0.0123", "1.23", "56.8", "1234"])


class Refusals(unittest.TestCase):
    """What the comparison does not let through."""

    def setUp(self) -> None:
        self.line: dict[str, object] = {
            "framework": "peer",
            "precision": "f32",
            "work": "train",
            **{name: getattr(TINY, name) for name in ("cell", "inputs", "hidden", "batch", "sequence", "layers", "classes")},
            "milliseconds": 2.0,
            "checksum": 1.5,
            "gflops": peer.operations(TINY, "train") / 2e6,
        }

    def test_a_line_of_the_shape_passes(self) -> None:
        comparison.refuse(self.line, TINY, "train")

    def test_a_line_of_another_shape_or_work_or_without_sense_is_refused(self) -> None:
        wrong = {"hidden": 6, "work": "infer", "milliseconds": 0.0, "checksum": float("nan"), "gflops": 1.0}
        for name, value in wrong.items():
            with self.subTest(name=name), self.assertRaises(Failed):
                comparison.refuse({**self.line, name: value}, TINY, "train")

    def test_checksums_that_differ_are_refused(self) -> None:
        found: dict[str, tuple[str, float]] = {}
        one, two = (Contender(label, [], "", peer.WORKS) for label in ("one", "two"))
        comparison.agree(one, "train", self.line, found)
        comparison.agree(two, "train", {**self.line, "checksum": 1.50001}, found)
        with self.assertRaises(Failed):
            comparison.agree(two, "train", {**self.line, "checksum": 1.51}, found)

    def test_a_checksum_of_ours_of_another_size_is_refused(self) -> None:
        found = {"train": ("one", 1.5)}
        refrain = Contender("refrain", [], "", peer.WORKS)
        comparison.agree(refrain, "train", {**self.line, "checksum": 1.8}, found)
        with self.assertRaises(Failed):
            comparison.agree(refrain, "train", {**self.line, "checksum": 4.0}, found)

    def test_a_contender_that_takes_too_long_fails(self) -> None:
        slow = Contender("slow", [sys.executable, "-c", "import time; time.sleep(60)"], "", peer.WORKS)
        with self.assertRaisesRegex(Failed, "longer than"):
            slow.ask(TINY, "train", [], 0.5)

    def test_a_contender_that_does_not_start_fails(self) -> None:
        for served in (False, True):
            absent = Contender("absent", [sys.executable, "-c", "raise SystemExit(3)"], "", peer.WORKS, served)
            self.addCleanup(absent.stop)
            with self.subTest(served=served), self.assertRaisesRegex(Failed, "ended with 3|does not start"):
                absent.ask(TINY, "train", [], 30)


def stand_in(folder: str, factor: str = "1.1") -> str:
    path = Path(folder) / "refrain"
    path.write_text(
        textwrap.dedent(STAND_IN).lstrip().format(python=sys.executable, here=str(HERE), factor=factor), encoding="utf-8"
    )
    path.chmod(0o755)
    return str(path)


class Command(unittest.TestCase):
    """The whole command, with a stand-in for refrain."""

    def run_with(self, folder: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HERE / "run"), "--no-install", "--rounds", "2", "--runs", "1", "--seconds", "0"]
        return subprocess.run(
            [*command, "--shape", "gru:3:5:2:4:2", "--output", f"{folder}/page.md", "--lines", f"{folder}/lines", *more],
            capture_output=True,
            text=True,
            check=False,
        )

    def test_it_writes_a_page_and_a_line_for_each_round(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = self.run_with(folder, "--refrain", stand_in(folder))
            self.assertEqual(done.returncode, 0, done.stderr)
            page = Path(folder, "page.md").read_text(encoding="utf-8")
            self.assertIn("# refrain and its peers on cpu", page)
            self.assertIn("| gru | 4 | 2 | 3 | 5 | 2 |", page)
            self.assertIn("burn: it takes minutes to build", page)
            kept = [json.loads(text) for text in Path(folder, "lines").read_text(encoding="utf-8").splitlines()]
            self.assertEqual(sum(line["framework"] == "refrain" for line in kept), 2 * 2)
            if not missing("numpy", "torch"):
                self.assertEqual(sum(line["framework"] == "pytorch" for line in kept), 2 * 2)
                self.assertIn("pytorch ms (ratio)", page)

    @unittest.skipIf(missing("numpy", "torch"), "PyTorch is not installed")
    def test_a_refrain_that_does_other_work_is_not_compared(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = self.run_with(folder, "--refrain", stand_in(folder, factor="3.0"))
            self.assertEqual(done.returncode, 2)
            self.assertIn("left out: refrain: the checksum of", done.stderr)

    def test_without_a_sane_refrain_nothing_is_compared(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = self.run_with(folder, "--refrain", stand_in(folder, factor="float('nan')"))
            self.assertEqual(done.returncode, 2)
            self.assertIn("nothing to compare", done.stderr)
            self.assertFalse(Path(folder, "page.md").exists())


if __name__ == "__main__":
    unittest.main()
