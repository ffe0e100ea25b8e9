"""Write a model for other runtimes: ONNX, for ONNX Runtime or TensorRT.

features.onnx takes images (B, 3, H, W) normalised as ImageNet's and gives descriptors and local features,
regression.onnx takes the local features of pairs and gives both quads. B is free, H and W are fixed by --size.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--model", default="default", help="model file, or default for the one that ships")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="of the graphs")
    parser.add_argument(
        "--size", metavar="WxH", help="of the network's input; a 4:3 image at the model's working resolution"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the files")


def run(args: argparse.Namespace) -> int:
    """Export and name the files."""
    from geowarp_ros.lab.benchmark.scene import Size, parse_size
    from geowarp_ros.model.checkpoints import load_model
    from geowarp_ros.model.export import export_onnx

    model = load_model(args.model)
    shorter = model.config.resolution or 480
    size = parse_size(args.size) if args.size else Size(shorter, shorter * 4 // 3)
    for path in export_onnx(model, args.output, size.height, size.width):
        print(path)
    print(f"for images of {size} px")
    return 0
