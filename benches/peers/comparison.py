"""Runs `refrain bench` and the peers in turns, compares them, and tells of it in Markdown. Standard library only."""

from __future__ import annotations

import contextlib
import json
import math
import selectors
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from peer import Failed, Shape, operations

Line = dict[str, object]

# What every contender is asked before anything is timed: small, and no size is a default.
PROBE = Shape("lstm", inputs=32, hidden=48, batch=8, sequence=16, layers=2, classes=10)
# The largest relative difference between the checksums of two peers that start from the same numbers: a hundred roundings
# of their products' precision.
AGREEMENT = {"f32": 1e-4, "tf32": 5e-2, "f16-autocast": 5e-2}
# The largest factor between a checksum of refrain's, which draws other numbers from the same distributions, and the peers'.
# At the shape above, twelve draws of each work lie within a factor of 1.7 of their mean.
LIKENESS = 2.5
REFRAIN = "refrain"
MEMORY = (
    "The most memory in use at once. In brackets the peer's by refrain's: above 1, refrain takes less. How each is counted\n"
    "stands in [benches/peers](../peers/README.md#memory)."
)


@dataclass
class Contender:
    """One framework on one device with one precision."""

    label: str
    """Heading of its column."""
    command: Sequence[str]
    """Program and the flags that stay."""
    shown: str
    """The command as a reader would type it in the repository's root."""
    works: Sequence[str]
    served: bool = False
    """Whether one process answers all questions (`--serve`)."""
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def ask(self, shape: Shape, work: str, more: Sequence[str], limit: float) -> Line:
        """The line of one shape. Raises `Failed` if there is none after `limit` seconds."""
        flags = [*flags_of(shape, work), *more]
        text = self.asked(flags, limit) if self.served else self.called(flags, limit)
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise Failed(f"{self.label} printed no line of JSON, but {text[:200]!r}") from error
        if "error" in found:
            raise Failed(str(found["error"]))
        refuse(found, shape, work)
        return found

    def called(self, flags: Sequence[str], limit: float) -> str:
        """Starts the program once."""
        command = [*self.command, *flags, "--json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=self.environment, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.label} took longer than {limit:.0f} s") from error
        except OSError as error:
            raise Failed(f"{self.label}: {error}") from error
        if done.returncode != 0:
            raise Failed(f"{self.label} ended with {done.returncode}: {last_line(done.stderr)}")
        return last_line(done.stdout)

    def asked(self, flags: Sequence[str], limit: float) -> str:
        """Asks the process that waits for questions, which is started by the first one."""
        if self.process is None or self.process.poll() is not None:
            command = [*self.command, "--serve"]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=self.environment)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(shlex.join(flags) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            self.stop()
            raise Failed(f"{self.label} does not start") from error
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                self.stop()
                raise Failed(f"{self.label} took longer than {limit:.0f} s")
        text = self.process.stdout.readline()
        if not text:
            code = self.process.wait()
            self.stop()
            raise Failed(f"{self.label} ended with {code}")
        return text

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    # What was not yet written to a process that has ended is lost with it.
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self.process = None


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def flags_of(shape: Shape, work: str) -> list[str]:
    """The flags of a shape, which all contenders share."""
    flags = ["--work", work]
    for name in ("cell", "inputs", "hidden", "batch", "sequence", "layers", "classes"):
        flags += [f"--{name}", str(getattr(shape, name))]
    return flags


def refuse(found: Line, shape: Shape, work: str) -> None:
    """Raises `Failed` if a line is not of the shape that was asked for, or its numbers cannot be."""
    for name in ("cell", "inputs", "hidden", "batch", "sequence", "layers", "classes"):
        if found.get(name) != getattr(shape, name):
            raise Failed(f"{found.get('framework')} was asked for {name} {getattr(shape, name)} and did {found.get(name)}")
    if found.get("work") != work:
        raise Failed(f"{found.get('framework')} was asked for {work} and did {found.get('work')}")
    for name in ("milliseconds", "checksum"):
        number = found.get(name)
        if not isinstance(number, (int, float)) or not math.isfinite(number) or (name == "milliseconds" and number <= 0):
            raise Failed(f"{found.get('framework')} gave {name} {number}")
    given = found.get("gflops")
    computed = operations(shape, work) / (float(str(found["milliseconds"])) * 1e6)
    if isinstance(given, (int, float)) and abs(given - computed) > 0.01 * computed:
        raise Failed(f"{found.get('framework')} counts {given:.4g} GFLOP/s where the formula gives {computed:.4g}")


def usable(contenders: Sequence[Contender], works: Sequence[str], limit: float, say: Callable[[str], None]) -> list[Contender]:
    """Those that can do their work at a small shape, with checksums that agree. Says why the others are left out."""
    once = ["--runs", "1", "--seconds", "0"]
    left: list[Contender] = []
    found: dict[str, tuple[str, float]] = {}
    # Ours last: it is held against what the peers agree on.
    for contender in sorted(contenders, key=lambda contender: contender.label == REFRAIN):
        try:
            for work in works:
                if work in contender.works:
                    agree(contender, work, contender.ask(PROBE, work, once, limit), found)
        except Failed as error:
            contender.stop()
            say(f"{contender.label}: {error}")
            continue
        left.append(contender)
    return [contender for contender in contenders if contender in left]


def agree(contender: Contender, work: str, answer: Line, found: dict[str, tuple[str, float]]) -> None:
    """Raises `Failed` if a checksum differs from that of the first peer with the same work, which it keeps.

    The peers start from the same numbers and agree but for rounding. `refrain` draws its own, so that its checksum only has
    to be of the same size.
    """
    checksum = float(str(answer["checksum"]))
    if work not in found:
        if contender.label != REFRAIN:
            found[work] = (contender.label, checksum)
        return
    other, expected = found[work]
    said = f"the checksum of {work} is {checksum:.6g}, that of {other} {expected:.6g}"
    if contender.label == REFRAIN:
        if not expected / LIKENESS <= checksum <= expected * LIKENESS:
            raise Failed(f"{said}; a factor of {LIKENESS:g} is allowed, as it draws other numbers")
        return
    allowed = AGREEMENT[str(answer["precision"])]
    if abs(checksum - expected) > allowed * abs(expected):
        raise Failed(f"{said}; a difference of {allowed:.0e} of it is allowed")


@dataclass
class Result:
    """What the contenders did with one work at one shape: the medians of the rounds, by label."""

    shape: Shape
    work: str
    rounds: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    memory: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The most bytes in use at once and how they are known, by label."""

    def milliseconds(self, label: str) -> float | None:
        """Median over the rounds."""
        found = self.rounds.get(label)
        return statistics.median(found) if found and label not in self.failures else None

    def ratio(self, label: str) -> float | None:
        """Milliseconds of a peer by ours: above 1, refrain is faster."""
        theirs, ours = self.milliseconds(label), self.milliseconds(REFRAIN)
        return theirs / ours if theirs is not None and ours is not None else None

    def drift(self) -> float:
        """The slowest of our rounds by the fastest: how far the machine itself changed."""
        found = self.rounds.get(REFRAIN)
        return max(found) / min(found) if found else math.nan


def compare(
    contenders: Sequence[Contender],
    shape: Shape,
    work: str,
    rounds: int,
    more: Sequence[str],
    limit: float,
    keep: Callable[[str, Line], None],
) -> Result:
    """Measures one shape: all contenders in turn, `rounds` times over, so that drift of the machine meets all alike.

    `keep` is given the label and the line of each measurement.
    """
    result = Result(shape, work)
    for _ in range(rounds):
        for contender in contenders:
            if work not in contender.works or contender.label in result.failures:
                continue
            try:
                answer = contender.ask(shape, work, more, limit)
            except Failed as error:
                result.failures[contender.label] = str(error)
                continue
            keep(contender.label, answer)
            result.rounds.setdefault(contender.label, []).append(float(str(answer["milliseconds"])))
            for name, how in (("bytes", "measured"), ("formula_bytes", "formula")):
                told = answer.get(name)
                if isinstance(told, int):
                    result.memory[contender.label] = (told, how)
                    break
    return result


def geometric_mean(numbers: Sequence[float]) -> float:
    """Of at least one number."""
    return math.exp(statistics.fmean(math.log(number) for number in numbers))


def table(results: Sequence[Result], labels: Sequence[str], work: str) -> str:
    """The results of one work in Markdown: milliseconds of ours, then of each peer with its ratio."""
    peers = [label for label in labels if label != REFRAIN and any(label in one.rounds for one in results if one.work == work)]
    heads = ["cell", "T", "B", "I", "H", "L", f"{REFRAIN} ms", "drift", *(f"{label} ms (ratio)" for label in peers)]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for one in results:
        if one.work != work:
            continue
        shape = one.shape
        row = [shape.cell, *(str(n) for n in (shape.sequence, shape.batch, shape.inputs, shape.hidden, shape.layers))]
        ours = one.milliseconds(REFRAIN)
        row += ["failed" if ours is None else number(ours), f"{one.drift():.2f}"]
        for label in peers:
            theirs, ratio = one.milliseconds(label), one.ratio(label)
            if theirs is None:
                row.append("failed" if label in one.failures else "")
            else:
                row.append(number(theirs) + (f" (**{ratio:.2f}**)" if ratio is not None else ""))
        rows.append(row)
    means = ["geometric mean", *[""] * 7]
    for label in peers:
        ratios = [ratio for one in results if one.work == work and (ratio := one.ratio(label)) is not None]
        means.append(f"**{geometric_mean(ratios):.2f}**" if ratios else "")
    rows.append(means)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def memory_table(results: Sequence[Result], labels: Sequence[str], work: str) -> str | None:
    """Megabytes of one work in Markdown, ours and then each peer's with its ratio; nothing where no two tell."""
    told = [one for one in results if one.work == work and REFRAIN in one.memory and len(one.memory) > 1]
    peers = [label for label in labels if label != REFRAIN and any(label in one.memory for one in told)]
    if not peers:
        return None
    hows = {one.memory[REFRAIN][1] for one in told}
    heads = ["cell", "T", "B", "I", "H", "L", f"{REFRAIN} MB ({', '.join(sorted(hows))})"]
    rows = [[*heads, *(f"{label} MB (ratio)" for label in peers)], ["---", *["---:"] * (len(heads) - 1 + len(peers))]]
    for one in told:
        shape, ours = one.shape, one.memory[REFRAIN][0]
        row = [shape.cell, *(str(n) for n in (shape.sequence, shape.batch, shape.inputs, shape.hidden, shape.layers))]
        row.append(number(ours / 1e6))
        for label in peers:
            theirs = one.memory.get(label)
            row.append("" if theirs is None else f"{number(theirs[0] / 1e6)} (**{theirs[0] / ours:.2f}**)")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def number(milliseconds: float) -> str:
    """With three digits that count, and no more."""
    return f"{milliseconds:.{max(0, 2 - math.floor(math.log10(milliseconds)))}f}"


def report(
    facts: Mapping[str, str],
    commands: Sequence[str],
    skipped: Sequence[str],
    results: Sequence[Result],
    labels: Sequence[str],
) -> str:
    """The page that goes into `benches/results`."""
    parts = [f"# refrain and its peers on {facts['Device']}", "", "| | |", "|---|---|"]
    parts += [f"| {name} | {fact} |" for name, fact in facts.items()]
    parts += ["", "Milliseconds of one run: the median over the rounds of each round's median. In brackets the peer's time by"]
    parts += ["refrain's: above 1, refrain is faster. `drift` is refrain's slowest round by its fastest. What a run does, and"]
    parts += ["what is fair in it, is described in [benches/peers](../peers/README.md)."]
    for work in dict.fromkeys(one.work for one in results):
        parts += ["", f"## {work}", "", table(results, labels, work)]
        memory = memory_table(results, labels, work)
        if memory is not None:
            parts += ["", MEMORY, "", memory]
    failures = [f"- {one.work} of {one.shape}: {why}" for one in results for why in one.failures.values()]
    if failures:
        parts += ["", "## What failed", "", *failures]
    if skipped:
        parts += ["", "## What was left out", "", *(f"- {why}" for why in skipped)]
    parts += ["", "## Commands", "", "Each of these with the flags of the shape:", "", "```sh", *commands, "```"]
    return "\n".join(parts) + "\n"


def today() -> str:
    """The date, by universal time."""
    return time.strftime("%Y-%m-%d", time.gmtime())
