"""Data-parallel training under ``torchrun``: each process handles its part of every batch.

With a single process all functions are the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from geowarp_ros.errors import TrainingError

T = TypeVar("T")


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Initialise the process group (NCCL on CUDA, Gloo on CPU) within the context."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def process_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Rank of this process; rank 0 writes files and logs."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def own_part(batch: int) -> slice:
    """Return this process's rows of a batch.

    Raises:
        TrainingError: The batch is not divisible by the number of processes.
    """
    size, rest = divmod(batch, process_count())
    if rest:
        raise TrainingError(f"a batch of {batch} images cannot be shared by {process_count()} processes")
    return slice(process_index() * size, (process_index() + 1) * size)


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate (b, …) of all processes to (B, …), in rank order; differentiable.

    Each process then computes the same loss over the whole batch. The backward pass sums the gradients of all
    processes and :func:`average_gradients` divides by their number, so results match a single process.
    """
    if process_count() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """All processes' rows; the gradient of a row is the sum of its gradients in all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        everyones = [torch.empty_like(rows) for _ in range(process_count())]
        dist.all_gather(everyones, rows)
        return torch.cat(everyones)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[own_part(len(gradient))]


def gather_objects(value: T) -> list[T]:
    """Return the values of all processes, in rank order."""
    if process_count() == 1:
        return [value]
    values: list[Any] = [None] * process_count()
    dist.all_gather_object(values, value)
    return values


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Average gradients over the processes."""
    _average(parameter.grad for parameter in parameters if parameter.grad is not None)


def average_buffers(module: torch.nn.Module) -> None:
    """Average floating-point buffers (running statistics) over the processes."""
    _average(buffer for buffer in module.buffers() if buffer.is_floating_point())


def _average(tensors: Iterable[Tensor]) -> None:
    """Average in one all-reduce."""
    if process_count() > 1 and (every := list(tensors)):
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in every])
        dist.all_reduce(flat)
        means = torch.split(flat / process_count(), [tensor.numel() for tensor in every])
        for tensor, mean in zip(every, means, strict=True):
            tensor.copy_(mean.view_as(tensor))
