"""Model scores of frames, as jobs for curation: Pixio's reconstruction loss, and an encoder's embedding.

Shapes: b batch, s side in pixels, k class tokens, d width.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.data.curation.curate import EMBEDDING, MAE_LOSS
from pixio_robot.data.curation.score_columns import Chunk, ScoreColumn
from pixio_robot.data.curation.square_batches import iterate_batches
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.machine import to_device, usable_cores
from pixio_robot.training.device import DEVICES, computes_in_bfloat16, pick_device
from pixio_robot.types import Features
from pixio_robot.vision import checkpointing
from pixio_robot.vision.build import EncoderKind, EncoderSource, build_encoder
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.masking import sample_mask

BATCH = {"cpu": 32, "cuda": 256}
VIEW = "largest central square"


@dataclasses.dataclass(frozen=True)
class _ComputeSettings:
    """Device (`cpu` or `cuda`) and precision of the workers. Both are fixed before the workers start, because the cache
    key of the scores contains the precision; a worker without that device fails."""

    device: str
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, enabled=self.dtype is not torch.float32)

    def key(self) -> dict[str, str]:
        """Half precision changes the scores, so it is part of their settings; without a key they are float32."""
        return {} if self.dtype is torch.float32 else {"precision": str(self.dtype).removeprefix("torch.")}

    def processes(self) -> int | None:
        """One worker on a GPU, which several would have to share; None (the default) on a CPU."""
        return 1 if self.device == "cuda" else None


@dataclasses.dataclass(frozen=True)
class _LossJob:
    chunk: Chunk
    checkpoint: str
    masks: int
    compute: _ComputeSettings


@dataclasses.dataclass(frozen=True)
class _EmbeddingJob:
    chunk: Chunk
    source: EncoderSource
    size: int
    compute: _ComputeSettings


def mae_loss_column(
    checkpoint: str, masks: int, device: str = "auto", gpus: float = 0.0, executor: Executor = Executor.PROCESSES
) -> ScoreColumn:
    """The reconstruction loss of a Pixio, averaged over `masks` masks per frame: float32 (n,), NaN if unreadable.

    The masks are drawn from the frame's id, so a frame's loss does not depend on its neighbours, its batch or the
    number of workers. `executor` will run the job, on Ray with `gpus` per worker. Raises UserError if `checkpoint`
    is not a Pixio with its decoder, or if the requested GPU is not available.
    """
    if masks < 1:
        raise UserError(f"mae_masks must be at least 1, not {masks}.")
    compute = _compute_settings(device, executor, gpus)
    model = Pixio.load(checkpoint)
    return ScoreColumn(
        name=MAE_LOSS,
        title="reconstruction loss",
        settings={"model": checkpointing.fingerprint(model, _model_config(model)), "masks": masks, "view": VIEW}
        | compute.key(),
        job=_run_loss_job,
        argument=lambda chunk: _LossJob(chunk, str(Path(checkpoint).absolute()), masks, compute),
        local_workers=compute.processes(),
        gpus=gpus,
    )


def embedding_column(
    source: EncoderSource,
    size: int,
    device: str = "auto",
    gpus: float = 0.0,
    executor: Executor = Executor.PROCESSES,
) -> ScoreColumn | None:
    """The mean class token of an encoder at `size` pixels, scaled to unit length: float16 (n, d). None for kind
    none. `executor` will run the job, on Ray with `gpus` per worker. Raises UserError if the requested GPU is not
    available."""
    if source.kind is EncoderKind.NONE:
        return None
    encoder: Any = build_encoder(source)
    compute = _compute_settings(device, executor, gpus)
    encoder.grid(size, size)  # raises for an unsuitable size before data is read
    return ScoreColumn(
        name=EMBEDDING,
        title="embedding",
        settings={"encoder": encoder.fingerprint(), "size": size, "view": VIEW} | compute.key(),
        job=_run_embedding_job,
        argument=lambda chunk: _EmbeddingJob(chunk, source, size, compute),
        local_workers=compute.processes(),
        gpus=gpus,
    )


def _compute_settings(device: str, executor: Executor, gpus: float) -> _ComputeSettings:
    """Ray's workers have the GPUs that they reserve, regardless of the machine that starts them; on one that does not
    compute in bfloat16 they emulate it."""
    if executor is Executor.PROCESSES:
        picked = pick_device(device)
        # On every CPU in float32, so that a store's frames may be scored on several.
        half = picked.type == "cuda" and computes_in_bfloat16(picked)
        return _ComputeSettings(picked.type, torch.bfloat16 if half else torch.float32)
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    if device == "cuda" and gpus <= 0:
        raise UserError(
            "device=cuda with executor=ray needs gpus=1, or the fraction of a GPU to reserve for each worker."
        )
    return (
        _ComputeSettings("cuda", torch.bfloat16)
        if gpus > 0 and device != "cpu"
        else _ComputeSettings("cpu", torch.float32)
    )


def _decoding_threads(device: torch.device) -> int:
    """Number of decoding threads. With a GPU all cores decode; on a CPU each core has a worker, which also computes."""
    return usable_cores() if device.type == "cuda" else 2


def _model_config(model: Pixio) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "encoder": model.encoder.config,
        "decoder": model.decoder_config,
        "mask": model.mask_config,
    }
    return {name: dataclasses.asdict(part) for name, part in parts.items()} | {
        "pixel_normalisation": model.pixel_normalisation
    }


def _worker_device(name: str) -> torch.device:
    device = pick_device(name)
    if device.type == "cpu":
        torch.set_num_threads(1)  # the workers are the parallelism, and sums do not depend on their number
    return device


@functools.lru_cache(maxsize=1)
def _cached_pixio(checkpoint: str, device: torch.device) -> Pixio:
    """Cached: a worker scores many chunks with one model."""
    return Pixio.load(checkpoint).eval().requires_grad_(False).to(device)


_encoders: dict[str, Any] = {}
"""Cache by source and device: a worker embeds many chunks with one encoder."""


def _cached_encoder(source: EncoderSource, device: torch.device) -> Any:
    key = f"{source} {device}"
    if key not in _encoders:
        _encoders[key] = build_encoder(source).requires_grad_(False).to(device)
    return _encoders[key]


@torch.inference_mode()
def _run_loss_job(job: _LossJob, report: Callable[[float], None]) -> None:
    device = _worker_device(job.compute.device)
    model = _cached_pixio(job.checkpoint, device)
    size = model.encoder.config.resize or model.encoder.config.image_size
    grid = model.encoder.grid(size, size)
    shards = FrameShards.open(job.chunk.data, job.chunk.split)
    losses = np.full(job.chunk.stop - job.chunk.start, np.nan, np.float32)
    for rows, images in iterate_batches(shards, job.chunk, size, BATCH[device.type], _decoding_threads(device)):
        images_bss3 = to_device(torch.from_numpy(images), device)
        total_b = torch.zeros(len(rows), device=device)
        generators = [_generator_for_frame(shards.id(row)) for row in rows.tolist()]
        masks = sample_mask(job.masks * len(rows), grid, model.mask_config, job.masks * generators, device)
        for start in range(0, job.masks * len(rows), len(rows)):
            with job.compute.autocast():
                mask = masks.rows(slice(start, start + len(rows)))
                total_b += model.reconstruct(images_bss3, mask).loss_per_image
        losses[rows - job.chunk.start] = (total_b / job.masks).cpu().numpy()
        report(len(rows))
    shards.close()
    job.chunk.save(losses)


def _generator_for_frame(identity: str) -> torch.Generator:
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@torch.inference_mode()
def _run_embedding_job(job: _EmbeddingJob, report: Callable[[float], None]) -> None:
    device = _worker_device(job.compute.device)
    encoder = _cached_encoder(job.source, device)
    shards = FrameShards.open(job.chunk.data, job.chunk.split)
    vectors = np.zeros((job.chunk.stop - job.chunk.start, encoder.feature_dim), np.float16)
    for rows, images in iterate_batches(shards, job.chunk, job.size, BATCH[device.type], _decoding_threads(device)):
        with job.compute.autocast():
            features = encoder(to_device(torch.from_numpy(images), device))
        vectors_bd = embed_features(features)
        vectors[rows - job.chunk.start] = vectors_bd.half().cpu().numpy()
        report(len(rows))
    shards.close()
    job.chunk.save(vectors)


def embed_features(features: Features) -> Tensor:
    """One unit vector per image (b, d): the mean class token, or the mean patch token if the encoder has none."""
    tokens_bkd = features.cls if features.cls.shape[1] else features.patches.flatten(1, 2)
    return functional.normalize(tokens_bkd.float().mean(dim=1), dim=-1)
