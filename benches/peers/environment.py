"""What the comparison runs with: the virtual environment, the programs, and what the machine is. Standard library only."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VIRTUAL_ENVIRONMENT = HERE / ".venv"
# Installed one by one, so that a peer that cannot be had costs no other.
# Packages and modules have the same names.
PACKAGES = {"pytorch": ("numpy", "torch"), "onnxruntime": ("numpy", "onnx", "onnxruntime")}
SOFTWARE = "software"
BURN = HERE / "burn"


class Missing(Exception):
    """Something that the comparison cannot go without; the message says what would help."""


def python(install: bool, torch_index: str | None, say: Callable[[str], None]) -> str:
    """A Python with the peers' packages: that of the virtual environment, or this one where nothing is installed."""
    if not install:
        return sys.executable
    folder = VIRTUAL_ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
    program = str(folder / "python")
    if not Path(program).exists():
        print(f"making the virtual environment {VIRTUAL_ENVIRONMENT.relative_to(ROOT)}", file=sys.stderr)
        try:
            venv.create(VIRTUAL_ENVIRONMENT, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"no virtual environment could be made, so this Python's packages are used: {error}")
            return sys.executable
    for peer, packages in PACKAGES.items():
        if has(program, packages):
            continue
        index = ["--index-url", torch_index] if torch_index and peer == "pytorch" else []
        print(f"installing {', '.join(packages)}", file=sys.stderr)
        done = run([program, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *index, *packages])
        if done.returncode != 0:
            say(f"{peer}: pip could not install it: {closing(done.stderr)}")
    return program


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command's exit code and output; a program that does not exist has the exit code 127."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def closing(text: str) -> str:
    """The last line of an output, where programs say what went wrong."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it did not say why"


def has(program: str, modules: Sequence[str]) -> bool:
    """Whether a Python imports the modules."""
    return run([program, "-c", "; ".join(f"import {module}" for module in modules)]).returncode == 0


def cuda(program: str) -> bool:
    """Whether that Python's PyTorch finds a CUDA device."""
    return run([program, "-c", "import torch, sys; sys.exit(not torch.cuda.is_available())"]).returncode == 0


def cargo(folder: Path, package: str) -> Path:
    """Builds a program in release and returns its path. Cargo's progress goes to the screen."""
    target = folder / os.environ.get("CARGO_TARGET_DIR", "target")
    command = ["cargo", "build", "--release", "--locked", "--bin", package]
    try:
        subprocess.run(command, cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"`{' '.join(command)}` in {folder} failed: {error}") from error
    return target / "release" / package


def resolved(refrain: str, device: str) -> tuple[str, bool]:
    """The device that refrain takes for a name, and whether it is a GPU in software."""
    done = run([refrain, "devices"])
    if done.returncode != 0:
        raise Missing(f"`{refrain} devices` failed: {closing(done.stderr)}")
    if device == "auto":
        found = re.search(r"^auto takes +(\S+)", done.stdout, re.MULTILINE)
        if found is None:
            raise Missing(f"`{refrain} devices` does not say what auto takes; name a device by --device")
        device = found[1]
    if device in ("cpu", "reference"):
        return device, False
    entries = re.findall(r"^(gpu:\d+) +(.+)\n(?: .*\n)*? +kind (\w+)", done.stdout, re.MULTILINE)
    for name, adapter, kind in entries:
        first_hardware = device == "gpu" and kind != SOFTWARE
        if first_hardware or device == name or (device != "gpu" and device.lower() in adapter.lower()):
            return device, kind == SOFTWARE
    raise Missing(f"`{refrain} devices` lists no {device}, but {', '.join(['cpu', *(name for name, _, _ in entries)])}")


def processor() -> str:
    """The processor's name."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = found[1] if found else name
    except OSError:
        pass
    return name


def card() -> str | None:
    """NVIDIA's driver's own words for its first card."""
    done = run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def revision() -> str:
    """The commit that is measured, as git or the bundle's file tells."""
    done = run(["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
    if done.returncode == 0:
        return done.stdout.strip()
    try:
        return (ROOT / "revision").read_text(encoding="utf-8").strip()[:12]
    except OSError:
        return "unknown"
