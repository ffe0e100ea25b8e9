"""Training session: the loop shared by all trainings.

Covers random numbers, mixed precision, the optimiser step, logging and checkpoints (``last.pt`` to resume from,
``best.safetensors`` to use). Random numbers depend on (seed, step, purpose) only, so a resumed training is
bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from geowarp_ros.errors import ModelError, TrainingError
from geowarp_ros.files import write_whole
from geowarp_ros.lab.training.data import ahead
from geowarp_ros.lab.training.parameters import SessionConfig
from geowarp_ros.lab.training.processes import average_buffers, average_gradients, process_index
from geowarp_ros.model.checkpoints import check_tensors, save_model
from geowarp_ros.model.describer import choose_device
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.inference import check_precision
from geowarp_ros.model.torch_files import load_torch
from geowarp_ros.provenance import commit

logger = logging.getLogger(__name__)
T = TypeVar("T")

LAST, BEST, SETTINGS = "last.pt", "best.safetensors", "training.json"
"""Output files: checkpoint to resume from, best model, settings."""

LAST_MODEL = "last.safetensors"
"""Model after the last step, for trainings that keep it."""


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Session:
    """A training of ``model`` by ``optimizer``.

    ::

        session.start(resume=False)
        for batch in session.batches(total, read):
            with session.autocast():
                loss = ...
            session.apply(loss, names, triplet=...)      # backward, clip, optimiser, scalars
            if session.ends_round(every) and not session.save_best(recall) and session.stale > patience:
                break
        session.finish()

    Attributes:
        step: Completed steps.
        memory: Tensors saved with the checkpoint (mined pairs, caches …).
        best: Best score; -inf before the first.
        stale: Scores since the best.
    """

    def __init__(
        self,
        model: GeoWarp,
        optimizer: torch.optim.Optimizer,
        config: SessionConfig,
        output: Path,
        settings: Mapping[str, Any],
        extra: nn.Module | None = None,
    ) -> None:
        """Set up without touching disk or device.

        Args:
            model: Model, already on its device.
            optimizer: Optimiser over the trained parameters of ``model`` and ``extra``.
            config: Session parameters.
            output: Folder for checkpoints and event files.
            settings: All settings, written to ``training.json``.
            extra: Modules saved with the checkpoint that are not part of the model.

        Raises:
            ConfigError: The device has no arithmetic of the configured precision.
        """
        self.model, self.optimizer, self.config, self.output = model, optimizer, config, output
        self.extra = extra or nn.Module()
        self.settings = dict(settings)
        self.device = next(model.parameters()).device
        self.step, self.best, self.stale = 0, -math.inf, 0
        self.memory: dict[str, Tensor] = {}
        check_precision(self.device, config.precision)
        self._scaler = torch.amp.GradScaler(enabled=config.precision == "float16")
        self._scalars: dict[str, list[float]] = {}
        self._images, self._since = 0, 0.0
        self._total = 0
        self._board: Any = None

    def start(self, resume: bool = False) -> None:
        """Create the output folder and write the settings; with ``resume``, load ``last.pt``.

        Raises:
            TrainingError: A training exists and ``resume`` is false, or none exists and it is true, or the
                checkpoint is of another network.
        """
        last = self.output / LAST
        if resume and not last.exists():
            raise TrainingError(f"{last}: nothing to resume from")
        if not resume and last.exists():
            raise TrainingError(f"{self.output}: holds a training already; resume it or choose another folder")
        if resume:
            self._load(last)
        if process_index() == 0:
            self.output.mkdir(parents=True, exist_ok=True)
            record = {"settings": self.settings, "commit": commit(), "seed": self.config.seed, "step": self.step}
            write_whole(
                self.output / SETTINGS, (json.dumps(record, indent=2, default=str) + "\n").encode(), TrainingError
            )
            self._board = self._open_board()

    def steps(self, total: int) -> Iterator[int]:
        """Yield step numbers up to ``total``; log and save at the configured intervals."""
        self._total, self._since, self._images = total, time.monotonic(), 0
        while self.step < total:
            torch.manual_seed(int(self.rng("torch").integers(2**63)))
            before = self.step
            yield before
            if self.step == before:
                raise RuntimeError("a step ended without apply()")
            if self.step % self.config.log_every == 0:
                self._report()
            if self.step % self.config.save_every == 0 or self.step == total:
                self.save()

    def batches(
        self, total: int, read: Callable[[int], T], every: int = 0, prepare: Callable[[int], None] | None = None
    ) -> Iterator[T]:
        """Yield the batch of each step up to ``total``, read ahead in background threads.

        Args:
            total: Number of steps.
            read: Reads the batch of a step.
            every: Steps of a round, beyond which nothing is read ahead; 0: all.
            prepare: Called with the first step of each round before its batches are read.
        """
        every = every or total
        ready: Iterator[T] | None = None
        for step in self.steps(total):
            place = step % every
            if place == 0 and prepare is not None:
                prepare(step)
            if place == 0 or ready is None:
                ready = ahead(read, range(step, min(total, step - place + every)))
            yield next(ready)

    def ends_round(self, every: int) -> bool:
        """Return whether a round of ``every`` steps, or the training, has just ended."""
        return self.step % every == 0 or self.step == self._total

    def rng(self, purpose: str, step: int | None = None) -> np.random.Generator:
        """Return the NumPy generator of (seed, step, purpose); ``step`` defaults to the current step."""
        step = self.step if step is None else step
        return np.random.default_rng([self.config.seed, step, zlib.crc32(purpose.encode())])

    def generator(self, purpose: str) -> torch.Generator:
        """Return the torch CPU generator of (seed, current step, purpose)."""
        return torch.Generator().manual_seed(int(self.rng(purpose).integers(2**63)))

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context of the configured precision."""
        kind = PRECISIONS[self.config.precision]
        return torch.autocast(self.device.type, kind, enabled=kind is not torch.float32)

    def apply(self, loss: Tensor, names: Sequence[str], **terms: Tensor) -> None:
        """Backpropagate and take an optimiser step; gradients are averaged over the processes.

        Args:
            loss: Scalar, the mean over this process's part of the batch or over the gathered batch.
            names: Image names of the batch, for error messages and throughput.
            terms: Loss terms to log.

        Raises:
            TrainingError: The loss or gradient is not finite; the model is unchanged.
        """
        self._refuse_nan(loss, names, "loss")
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        average_gradients(parameters)
        self._scaler.unscale_(self.optimizer)
        length = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        if not self._scaler.is_enabled():  # float16: the scaler handles overflow
            self._refuse_nan(length, names, "gradient")
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.step += 1
        self._images += len(names)
        for name, value in {"loss": loss, **terms}.items():
            self._scalars.setdefault(name, []).append(float(value.detach()))

    def log(self, name: str, value: float) -> None:
        """Log a scalar at the current step."""
        if self._board is not None:
            self._board.add_scalar(name, value, self.step)
        if process_index() == 0:
            logger.info("step %d  %s %.4g", self.step, name, value)

    def save(self) -> None:
        """Write ``last.pt`` atomically.

        Raises:
            TrainingError: It cannot be written; the previous checkpoint is kept.
        """
        average_buffers(self.model)
        if process_index() == 0:
            buffer = io.BytesIO()
            torch.save(self._state(), buffer)
            write_whole(self.output / LAST, buffer.getvalue(), TrainingError)

    def save_best(
        self, score: float, notes: Mapping[str, str] | None = None, model: GeoWarp | None = None
    ) -> bool:
        """Write ``best.safetensors`` if ``score`` exceeds the best so far; return whether it does.

        ``model`` is the evaluated model, if not the trained one (e.g. its moving average).
        """
        better = score > self.best
        self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        average_buffers(self.model)
        if better:
            self.save_model(BEST, model or self.model, {"score": f"{score:.6g}", **(notes or {})})
        return better

    def save_model(self, name: str, model: GeoWarp, notes: Mapping[str, str] | None = None) -> None:
        """Write a model file with step, seed and commit in its header.

        Raises:
            TrainingError: It cannot be written.
        """
        if process_index() == 0:
            made = {"step": str(self.step), "seed": str(self.config.seed), "commit": commit()}
            try:
                save_model(model, self.output / name, notes={**made, **(notes or {})})
            except (OSError, ModelError) as error:
                raise TrainingError(f"{self.output / name}: cannot be written: {error}") from None

    def finish(self) -> None:
        """Close the TensorBoard event file."""
        if self._board is not None:
            self._board.close()

    def _state(self) -> dict[str, Any]:
        return {
            "format": "geowarp training 1",
            "architecture": self.model.config.model_dump_json(),
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
            "model": self.model.state_dict(),
            "extra": self.extra.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "memory": self.memory,
        }

    def _load(self, path: Path) -> None:
        try:
            state = load_torch(path)  # to the CPU, where AdamW keeps its step counters
            if state["format"] != "geowarp training 1":
                raise KeyError(f"format {state['format']!r}")
            architecture = self.model.config.model_dump_json()
            if state["architecture"] != architecture:
                raise TrainingError(f"{path}: is of {state['architecture']}, this training of {architecture}")
            check_tensors(state["model"], self.model.state_dict(), str(path))
            self.model.load_state_dict(state["model"])
            self.extra.load_state_dict(state["extra"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            self.step, self.best, self.stale = state["step"], state["best"], state["stale"]
            self.memory = {name: kept.to(self.device) for name, kept in state["memory"].items()}
        except (TrainingError, ModelError) as error:
            raise TrainingError(str(error)) from None
        except Exception as error:  # torch.load raises many types for damaged files
            raise TrainingError(f"{path}: is no checkpoint of this training: {error}") from None

    def _refuse_nan(self, value: Tensor, names: Sequence[str], what: str) -> None:
        if not bool(torch.isfinite(value)):
            some = ", ".join(list(names)[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise TrainingError(
                f"step {self.step}: the {what} is {float(value.detach()):g}; the batch was: {some}"
            )

    def _open_board(self) -> Any:
        if not self.config.tensorboard:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning(
                "no TensorBoard event files: tensorboard is not installed (pip install geowarp_ros[train])"
            )
            return None
        return SummaryWriter(str(self.output), purge_step=self.step)

    def _report(self) -> None:
        means = {name: float(np.mean(values)) for name, values in self._scalars.items()}
        self._scalars.clear()
        seconds = time.monotonic() - self._since
        left = timedelta(seconds=int(seconds / self.config.log_every * (self._total - self.step)))
        rate = self._images / max(seconds, 1e-9)
        self._since, self._images = time.monotonic(), 0
        if process_index() == 0:
            terms = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            logger.info("step %d/%d  %s  %.1f images/s  %s left", self.step, self._total, terms, rate, left)
        if self._board is not None:
            for name, value in {**means, "images_per_s": rate}.items():
                self._board.add_scalar(f"train/{name}", value, self.step)


def training_device(config: SessionConfig) -> torch.device:
    """Return the configured device; under torchrun, one GPU per process."""
    device = choose_device(config.device)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch within the context and restore the caller's random state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into optimiser groups: weight decay on matrices and kernels, none on biases and norms."""
    every = list(parameters)
    return [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
