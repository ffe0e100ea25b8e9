"""Write a model for other runtimes: ONNX, for ONNX Runtime or TensorRT.

features.onnx takes images (B, 3, H, W) normalised as ImageNet's and gives descriptors and local features,
regression.onnx takes the local features of pairs and gives both quads. B is free, H and W are fixed by --size.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import MODEL, NEW_FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "--model", type=MODEL, default="default", help="model file, or default for the one that ships"
    )
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="file format")
    parser.add_argument(
        "--size", type=_size, metavar="WxH",
        help="input size (px); left out: 4:3 at the model's working resolution",
    )  # fmt: skip
    parser.add_argument("--output", type=NEW_FOLDER, required=True, metavar="DIR", help="folder for the files")


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT of at least 32 px a side, as 640x480")
    return int(width), int(height)


def run(args: argparse.Namespace) -> int:
    """Export and name the files."""
    from geowarp_ros.lab.export import export_onnx
    from geowarp_ros.model.checkpoints import load_model

    model = load_model(args.model)
    shorter = model.config.resolution or 480
    width, height = args.size or (shorter if model.config.square else shorter * 4 // 3, shorter)
    for path in export_onnx(model, args.output, height, width):
        print(path)
    print(f"for images of {width}×{height} px")
    return 0
