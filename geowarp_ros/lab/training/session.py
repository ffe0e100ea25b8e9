"""One training, from its folder's first file to its last: what both trainings share.

A session owns the loop: randomness, precision, the optimiser's step, scalars, and two checkpoints, ``last.pt`` to
go on from and ``best.safetensors`` to use. All randomness is drawn from (seed, step, purpose) and none is carried
along, so that a training that was killed goes on exactly as if it had not been, from its last checkpoint.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from geowarp_ros.config import Section
from geowarp_ros.errors import ModelError, TrainingError
from geowarp_ros.files import write_whole
from geowarp_ros.lab.training.processes import average_buffers, average_gradients, process_index
from geowarp_ros.model.checkpoints import check_tensors, save_model
from geowarp_ros.model.describer import choose_device
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.torch_files import load_torch

logger = logging.getLogger(__name__)

LAST, BEST, SETTINGS = "last.pt", "best.safetensors", "training.json"
"""What a session writes: the checkpoint to resume from, the model to use, and how it was made."""

LAST_MODEL = "last.safetensors"
"""The model after the last step, where a training leaves it, too."""


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SessionConfig(Section):
    """What every training takes."""

    seed: int = Field(0, ge=0, lt=2**31, description="Every random choice follows from it.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Arithmetic of the networks; weights stay float32. float16 on CUDA only."
    )
    clip_norm: float = Field(10.0, gt=0.0, description="Longest gradient; a longer one is shortened to it.")
    save_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    log_every: int = Field(20, ge=1, description="Steps between lines of progress and TensorBoard scalars.")
    tensorboard: bool = Field(True, description="Write TensorBoard event files (needs the extra 'train').")


class Session:
    """A training of ``model`` by ``optimizer``.

    ::

        session.start(resume=False)
        for step in session.steps(total):
            with session.autocast():
                loss = ...
            session.apply(loss, names, triplet=...)      # backward, clip, optimiser, scalars
            if session.step % every == 0 and not session.save_best(recall) and session.stale > patience:
                break
        session.finish()

    Attributes:
        step: How many steps are done.
        memory: Tensors that are saved and come back with the checkpoint (mined pairs, caches …).
        best: The best score so far; -inf before the first.
        stale: How many scores since the best.
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
        """Touch neither disk nor device.

        Args:
            model: On its device already.
            optimizer: Over the trained ones of its parameters (and of ``extra``).
            config: The part of the settings that the session itself needs.
            output: Folder for checkpoints and scalars.
            settings: Everything that was chosen, to be written beside the checkpoints.
            extra: Trained along, but no part of the model (a projection, say).
        """
        self.model, self.optimizer, self.config, self.output = model, optimizer, config, output
        self.extra = extra or nn.Module()
        self.settings = dict(settings)
        self.device = next(model.parameters()).device
        self.step, self.best, self.stale = 0, -math.inf, 0
        self.memory: dict[str, Tensor] = {}
        if config.precision == "float16" and self.device.type != "cuda":
            raise TrainingError(
                "precision float16 needs CUDA: its gradients vanish on CPUs; bfloat16 is for those"
            )
        self._scaler = torch.amp.GradScaler(enabled=config.precision == "float16")
        self._scalars: dict[str, list[float]] = {}
        self._images, self._since = 0, 0.0
        self._total = 0
        self._board: Any = None

    def start(self, resume: bool = False) -> None:
        """Create the folder and write the settings, or take up where ``last.pt`` left off.

        Raises:
            TrainingError: The folder holds a training already and ``resume`` was not asked for; or it was and
                there is none, or one of another network.
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
        """Yield the number of each step from where the session stands up to ``total``, and save at intervals."""
        self._total, self._since, self._images = total, time.monotonic(), 0
        while self.step < total:
            torch.manual_seed(int(self.rng("torch").integers(2**63)))
            before = self.step
            yield before
            if self.step == before:
                raise RuntimeError("a step ended without apply(): the session cannot go on")
            if self.step % self.config.log_every == 0:
                self._report()
            if self.step % self.config.save_every == 0 or self.step == total:
                self.save()

    def rng(self, purpose: str, step: int | None = None) -> np.random.Generator:
        """Return the generator of (seed, step, purpose): the same whenever and wherever it is asked for.

        ``step`` is the current one unless given, as work done ahead must.
        """
        step = self.step if step is None else step
        return np.random.default_rng([self.config.seed, step, zlib.crc32(purpose.encode())])

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """:meth:`rng` for torch."""
        return torch.Generator(device=device).manual_seed(int(self.rng(purpose).integers(2**63)))

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that runs networks in the chosen precision."""
        return torch.autocast(self.device.type, self.kind, enabled=self.kind is not torch.float32)

    @property
    def kind(self) -> torch.dtype:
        """The chosen precision."""
        return PRECISIONS[self.config.precision]

    def apply(self, loss: Tensor, names: Sequence[str], **terms: Tensor | float) -> None:
        """Go one step down the gradient of ``loss``, averaged over the processes.

        Args:
            loss: Scalar; the mean over this process's part of the batch, or over the gathered batch.
            names: The images of the batch: for the message, should the loss not be finite, and for images/s.
            terms: Parts of the loss, for the record.

        Raises:
            TrainingError: The loss or its gradient is NaN or infinite; the model is left as it was.
        """
        self._refuse_nan(loss, names, "loss")
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        average_gradients(parameters)
        self._scaler.unscale_(self.optimizer)
        length = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        if not self._scaler.is_enabled():  # with float16 an overflow is met by a smaller scale, not an error
            self._refuse_nan(length, names, "gradient")
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.step += 1
        self._images += len(names)
        for name, value in {"loss": loss, **terms}.items():
            self._scalars.setdefault(name, []).append(
                float(value.detach() if isinstance(value, Tensor) else value)
            )

    def log(self, name: str, value: float) -> None:
        """Record one scalar at this step."""
        if self._board is not None:
            self._board.add_scalar(name, value, self.step)
        if process_index() == 0:
            logger.info("step %d  %s %.4g", self.step, name, value)

    def save(self) -> None:
        """Write ``last.pt``, whole or not at all.

        Raises:
            TrainingError: It cannot be written (a full disk); the previous one is still there.
        """
        average_buffers(self.model)
        if process_index() == 0:
            buffer = io.BytesIO()
            torch.save(self._state(), buffer)
            write_whole(self.output / LAST, buffer.getvalue(), TrainingError)

    def save_best(
        self, score: float, notes: Mapping[str, str] | None = None, model: GeoWarp | None = None
    ) -> bool:
        """Write ``best.safetensors`` if ``score`` is the best so far; returns whether it is.

        ``model`` is what reached the score, where that is not the trained one itself (a running average).
        """
        better = score > self.best
        self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        average_buffers(self.model)
        if better:
            self.save_model(BEST, model or self.model, {"score": f"{score:.6g}", **(notes or {})})
        return better

    def save_model(self, name: str, model: GeoWarp, notes: Mapping[str, str] | None = None) -> None:
        """Write a model to use into the folder, with step, seed and commit in its notes.

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
        """Close the event file."""
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
            state = load_torch(path)  # onto the CPU, where AdamW keeps its counters of steps
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
        except Exception as error:  # torch.load raises whatever a truncated or foreign file provokes
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
        steps = self.config.log_every
        left_s = int(seconds / steps * (self._total - self.step))
        rate = self._images / max(seconds, 1e-9)
        self._since, self._images = time.monotonic(), 0
        if process_index() == 0:
            terms = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            left = f"{left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
            logger.info("step %d/%d  %s  %.1f images/s  %s left", self.step, self._total, terms, rate, left)
        if self._board is not None:
            for name, value in {**means, "images_per_s": rate}.items():
                self._board.add_scalar(f"train/{name}", value, self.step)


def training_device(config: SessionConfig) -> torch.device:
    """Return the device that the configuration asks for; under torchrun each process takes a GPU of its own."""
    device = choose_device(config.device)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device


def commit() -> str:
    """Return the commit of the checkout that runs, with ``-dirty`` if it was changed; ``unknown`` outside one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw start values from ``seed`` and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
