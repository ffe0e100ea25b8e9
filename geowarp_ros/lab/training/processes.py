"""Several processes as one: ``torchrun`` starts them, each works on its part of every batch.

Outside ``torchrun`` there is one process and everything here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the other processes that ``torchrun`` started (NCCL on CUDA, Gloo on CPU), and leave at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Which of them this is; 0 writes the files and speaks for all."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def own_part(batch: int) -> slice:
    """Return this process's rows of a batch that the number of processes divides."""
    size = batch // process_count()
    return slice(process_index() * size, (process_index() + 1) * size)


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate (b, …) of every process to (B, …), in their order; gradients flow back to each its own.

    Every process then computes the same loss of the whole batch. The backward pass sums the processes'
    gradients, and :func:`average_gradients` divides by their number, so that one process and many agree.
    """
    if process_count() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """What each process holds, for all; the gradient of a row is the sum of what the processes make of it."""

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
    """Return every process's value, in their order."""
    if process_count() == 1:
        return [value]
    values: list[Any] = [None] * process_count()
    dist.all_gather_object(values, value)
    return values


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
    if process_count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    _average(gradients)


def average_buffers(module: torch.nn.Module) -> None:
    """Replace running statistics by their mean over the processes, so that each saves the same model."""
    if process_count() > 1:
        _average([buffer for buffer in module.buffers() if buffer.is_floating_point()])


def _average(tensors: list[Tensor]) -> None:
    if not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= process_count()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
