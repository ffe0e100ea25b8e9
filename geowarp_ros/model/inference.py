"""The network optimised for inference: the same function in fewer and cheaper steps.

Its layers are fused (:mod:`geowarp_ros.model.fused`) and computed by torch or ONNX Runtime
(:mod:`geowarp_ros.model.runtimes`). This is a copy: training, saving and fingerprinting use the
:class:`~geowarp_ros.model.geowarp.GeoWarp` itself.
"""

from __future__ import annotations

import copy
import os
import platform
from typing import Literal, TypeAlias

import torch
from torch import nn

from geowarp_ros.errors import ConfigError
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.fused import X86, Fused
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.runtimes import Runtime, check_runtime, faster_in_onnxruntime, in_runtime
from geowarp_ros.model.vit import is_transformer

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def for_inference(
    model: GeoWarp,
    device: torch.device | str,
    precision: Precision = "float32",
    runtime: Runtime = "torch",
) -> GeoWarp:
    """Return a copy of ``model`` for inference only: faster, equal up to rounding (1e-5 in float32).

    Later changes of ``model`` do not reach the copy.

    Args:
        model: Left as it is.
        device: Where the copy computes.
        precision: Precision of the encoder; aggregation, matching and regression stay in float32.
        runtime: What encoder and regression compute with. auto: each with the faster.

    Raises:
        ConfigError: This device has no arithmetic of that precision, or the runtime does not compute there.
        ModelError: The runtime is asked for by name and not installed.
    """
    device = torch.device(device)
    check_precision(device, precision)
    check_runtime(runtime, device, precision)
    if device.type != "cpu" or precision != "float32":
        runtime = "torch"
    answering = copy.deepcopy(model).to(device).eval().requires_grad_(False)

    def fused(encoder: nn.Sequential, name: EncoderName) -> nn.Sequential:
        dtype = _DTYPES[precision]
        # torch fuses what there is to fuse in a transformer
        layers = encoder.to(dtype) if is_transformer(name) else Fused(encoder, device, dtype)
        return in_runtime(layers, runtime, faster_in_onnxruntime(name))

    answering.encoder = fused(answering.encoder, model.config.encoder)
    if answering.retrieval is not None:
        answering.retrieval = fused(answering.retrieval, model.config.describing.encoder)
    if answering.regression is not None:
        linear = answering.regression.linear
        regression = Fused(answering.regression.conv, device, linear.weight.dtype)
        answering.regression.conv = in_runtime(regression, runtime, faster=False)
    return answering


def check_precision(device: torch.device, precision: Precision) -> None:
    """Refuse a precision that the device does not compute in.

    Raises:
        ConfigError: Naming both.
    """
    if precision == "float16" and device.type != "cuda":
        raise ConfigError(f"precision = 'float16': needs CUDA and the device is {device}; expected float32")
    if precision == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        raise ConfigError("precision = 'bfloat16': this CPU has no such instructions; expected float32")


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions; without, oneDNN emulates it 3 to 35 times slower than float32.

    Limits set by ONEDNN_MAX_CPU_ISA count: what oneDNN may not use, the CPU does not have.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if supported is None or not supported():
        return False
    # torch says yes to every x86 CPU with AVX-512, of which those before Cooper Lake and Zen 4 lack bfloat16
    extension = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if platform.machine() not in X86 or extension is None:
        return True
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")
    return bool(extension()) and limit.upper() not in ("AVX512_CORE", "AVX512_CORE_VNNI")
