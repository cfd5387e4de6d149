"""Export of an encoder to a file that runs without this toolkit: ONNX, or a torch.export program.

The exported model takes images uint8 (b, h, w, 3) of one size with any batch size, normalises them itself, and returns
`cls` (b, k, d) and `patches` (b, h, w, d). The file is reopened and checked against the encoder before it is published.
"""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, fsync_tree
from pixio_robot.types import Features

OUTPUTS = ("cls", "patches")
BATCH = 2
"""Batch size used for tracing; the checks use others."""
TOLERANCE = 1e-3
"""Largest difference allowed in float32 features; their final norm makes them of order 1."""


class ExportFormat(enum.Enum):
    ONNX = "onnx"
    TORCH_EXPORT = "torch_export"


class _Exported(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features: Features = self.encoder(images)
        return features.cls, features.patches


def export_encoder(encoder: nn.Module, path: Path, wanted: ExportFormat, height: int, width: int) -> float:
    """Export a `types.Encoder` for images of the given size [px]; returns the largest difference found in the check.

    Raises UserError if the outputs of the exported file differ from the encoder's.
    """
    write, open_again = {
        ExportFormat.ONNX: (_write_onnx, _open_onnx),
        ExportFormat.TORCH_EXPORT: (_write_program, _open_program),
    }[wanted]
    module = _Exported(encoder.cpu().eval())
    with atomic_file(path) as temporary, torch.no_grad():
        write(module, _images(BATCH, height, width), temporary)
        difference = _difference(module, open_again(temporary), height, width)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{path} was not written: the exported encoder differs from the original by {difference:.2g} "
                f"(allowed: {TOLERANCE})."
            )
        # Weights above 1.5 GB are in a file of their own, which the ONNX file names.
        if (weights := temporary.with_name(f"{path.name}.data")).exists():
            fsync_tree(weights)
            weights.replace(path.with_name(weights.name))
    return difference


def _difference(module: _Exported, exported: Callable[[Tensor], list[Tensor]], height: int, width: int) -> float:
    worst = 0.0
    for batch in (1, BATCH + 1):
        images = _images(batch, height, width)
        for expected, actual in zip(module(images), exported(images), strict=True):
            if expected.shape != actual.shape:
                raise UserError(
                    f"The exported encoder returns shape {tuple(actual.shape)} instead of {tuple(expected.shape)}."
                )
            worst = max(worst, (expected - actual).abs().max().item())
    return worst


def _images(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


def _program(module: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module, (images,), dynamic_shapes={"images": {0: batch}})


def _write_program(module: nn.Module, images: Tensor, path: Path) -> None:
    torch.export.save(_program(module, images), path)


def _open_program(path: Path) -> Callable[[Tensor], list[Tensor]]:
    program = torch.export.load(path).module()
    return lambda images: list(program(images))


def _write_onnx(module: nn.Module, images: Tensor, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  # needed by torch's ONNX exporter
    except ImportError:
        raise UserError("Export to ONNX needs onnx and onnxscript: pip install 'pixio-robot[export]'.") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's exporter
        program: Any = torch.onnx.export(
            _program(module, images), input_names=["images"], output_names=list(OUTPUTS), dynamo=True, verbose=False
        )
    program.save(path)


def _open_onnx(path: Path) -> Callable[[Tensor], list[Tensor]]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("Checking an ONNX file needs onnxruntime: pip install 'pixio-robot[export]'.") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(value) for value in session.run(list(OUTPUTS), {"images": images.numpy()})]
