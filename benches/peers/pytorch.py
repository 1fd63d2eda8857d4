#!/usr/bin/env python3
"""The work of `refrain bench` in PyTorch, on the CPU or on CUDA (cuDNN)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

# The profiler tells of its own starts and ends otherwise. It reads this when PyTorch is loaded.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import peer
import values
from peer import Prepared, Shape, Unsupported

MODULES: dict[str, type[nn.RNNBase]] = {"tanh": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class PyTorch:
    """PyTorch on one device. A GPU is waited for at the end of each run."""

    name = "pytorch"

    def __init__(self, device: str, precision: str, threads: int) -> None:
        self.version = str(torch.__version__)
        self.precision = precision
        self.on_gpu = device == "cuda"
        if not self.on_gpu and precision != "f32":
            raise Unsupported(f"precision {precision} needs --device cuda; the CPU has f32")
        if self.on_gpu and not torch.cuda.is_available():
            raise Unsupported("this PyTorch finds no CUDA device; --device cpu works")
        self.target = torch.device(device)
        torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.driver: str | None = None
        self.device = "cpu"
        if self.on_gpu:
            self.device = f"cuda:{torch.cuda.get_device_name()}"
            self.driver = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
            set_products("tf32" if precision == "tf32" else "ieee")

    def prepare(self, shape: Shape, work: str) -> Prepared:
        """Builds the stack on the device, with the peers' common weights and data."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        stack = recurrent(shape).to(self.target)
        x = torch.from_numpy(values.inputs(shape)).to(self.target)
        if work == "infer":
            return self.infer(stack, x)
        if work == "backward":
            return self.backward(stack, x, shape)
        return self.train(stack, x, shape)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass: half-precision products where they are asked for."""
        return torch.autocast(self.target.type, torch.float16, enabled=self.precision == "f16-autocast")

    def wait(self) -> None:
        """Returns when the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def prepared(
        self,
        run: Callable[[], object],
        checksum: Callable[[], float],
        held: Callable[[], Iterable[torch.Tensor]],
        leaves: Iterable[torch.Tensor] = (),
    ) -> Prepared:
        """`held` are the tensors that live on from run to run, and `leaves` those whose gradients do not."""

        def allocated() -> int | None:
            if self.on_gpu:
                return torch.cuda.max_memory_allocated()
            for leaf in leaves:
                leaf.grad = None
            return sum(tensor.nbytes for tensor in held()) + most_allocated(run)

        return Prepared(run, checksum, allocated)

    def infer(self, stack: nn.RNNBase, x: torch.Tensor) -> Prepared:
        """x → outputs, nothing kept for a gradient."""
        stack.eval()

        def run() -> torch.Tensor:
            with torch.inference_mode(), self.autocast():
                outputs = stack(x)[0]
            self.wait()
            return outputs

        held = [*stack.parameters(), x]
        return self.prepared(run, lambda: run().double().abs().mean().item(), lambda: held)

    def backward(self, stack: nn.RNNBase, x: torch.Tensor, shape: Shape) -> Prepared:
        """x → outputs, and the gradient of their mean to all parameters and to x."""
        x.requires_grad_()
        leaves = [*stack.parameters(), x]
        upstream = torch.full(
            (shape.sequence, shape.batch, shape.hidden), 1.0 / (shape.tokens * shape.hidden), device=self.target
        )

        def run() -> None:
            for leaf in leaves:
                leaf.grad = None
            with self.autocast():
                outputs = stack(x)[0]
            outputs.backward(upstream.to(outputs.dtype))
            self.wait()

        def checksum() -> float:
            run()
            assert x.grad is not None
            return x.grad.double().abs().mean().item()

        return self.prepared(run, checksum, lambda: [*leaves, upstream], leaves)

    def train(self, stack: nn.RNNBase, x: torch.Tensor, shape: Shape) -> Prepared:
        """A training step: stack, linear head, mean cross-entropy, backward, clipping, Adam; the loss is read."""
        head = linear(shape).to(self.target)
        targets = torch.from_numpy(values.targets(shape)).to(self.target)
        parameters = [*stack.parameters(), *head.parameters()]
        # The fused kernel is PyTorch's fastest on either device.
        adam = torch.optim.Adam(parameters, lr=peer.LEARNING_RATE, fused=True)
        scaler = torch.amp.GradScaler(self.target.type, enabled=self.precision == "f16-autocast")
        loss_of = nn.CrossEntropyLoss()

        def run() -> float:
            adam.zero_grad(set_to_none=True)
            with self.autocast():
                logits = head(stack(x)[0])
                loss = loss_of(logits.view(-1, shape.classes), targets)
            scaler.scale(loss).backward()
            scaler.unscale_(adam)
            nn.utils.clip_grad_norm_(parameters, peer.CLIP_NORM)
            scaler.step(adam)
            scaler.update()
            # Reading the loss waits for what was queued before; so does the call after it for the rest.
            value = loss.item()
            self.wait()
            return value

        def checksum() -> float:
            run()
            return run()

        def held() -> list[torch.Tensor]:
            moments = [value for state in adam.state.values() for value in state.values()]
            return [*parameters, *moments, x, targets]

        return self.prepared(run, checksum, held, parameters)


def most_allocated(run: Callable[[], object]) -> int:
    """The most bytes at once of the tensors that one run makes on the CPU: every allocation is seen, and every release."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def set_products(precision: str) -> None:
    """Whether products of f32 matrices may round their factors to TF32, for cuBLAS and for cuDNN's recurrent layers."""
    if hasattr(torch.backends.cudnn, "rnn"):
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.rnn.fp32_precision = precision
    else:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"


def recurrent(shape: Shape) -> nn.RNNBase:
    """The stack, `[time, batch, features]`, with the common weights."""
    stack = MODULES[shape.cell](shape.inputs, shape.hidden, shape.layers)
    with torch.no_grad():
        for number in range(shape.layers):
            for part, numbers in values.layer(shape, number).items():
                getattr(stack, f"{part}_l{number}").copy_(torch.from_numpy(numbers))
    return stack


def linear(shape: Shape) -> nn.Linear:
    """The head, with the common weights."""
    head = nn.Linear(shape.hidden, shape.classes)
    weight, bias = values.head(shape)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head


def main() -> int:
    parser = peer.arguments(__doc__ or "", ("cpu", "cuda"), peer.PRECISIONS, peer.WORKS)
    options = parser.parse_args()
    try:
        framework = PyTorch(options.device, options.precision, options.threads)
    except Unsupported as error:
        print(f"pytorch: {error}", file=sys.stderr)
        return 2
    return peer.bench(framework, parser, options)


if __name__ == "__main__":
    sys.exit(main())
