"""What models say of a frame is the frame's alone: no batch, chunk or neighbour changes it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pixio_robot.data.curation import score_columns
from pixio_robot.data.curation.curate import CurateConfig, curate
from pixio_robot.data.curation.score_columns import Chunk, Workers, compute_column
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.curation.sidecars import read_losses
from pixio_robot.data.curation.square_batches import center_crop
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.training.images import frame_scores
from pixio_robot.training.images.frame_scores import embed_features, embedding_column, mae_loss_column
from pixio_robot.types import Features
from pixio_robot.vision.build import EncoderKind, EncoderSource
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder

ENCODER = EncoderConfig(size="micro", patch=16, image_size=64, drop_path=0.9)  # which scores must not notice
COUNT = 10


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixio") / "mae"
    Pixio(PixioEncoder(ENCODER), DecoderConfig(width=32, depth=1, heads=2), MaskConfig(block=2)).save(path)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> FrameShards:
    """Two photo folders of five; the last of the second repeats the third of the first."""
    root = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (8, 10, 3), np.uint8) for _ in range(COUNT)]
    images[9] = images[2]
    for number, image in enumerate(images):
        (root / "in" / "ab"[number // 5]).mkdir(parents=True, exist_ok=True)
        large = cv2.resize(image, (100, 80), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "in" / "ab"[number // 5] / f"{number}.png"), large)
    ingest(IngestConfig(source=str(root / "in"), out=str(root / "out"), workers=1, validation_share=0.0))
    return FrameShards.open(root / "out")


def chunk(shards: FrameShards, start: int, stop: int, folder: Path) -> Chunk:
    return Chunk(str(shards.path), "train", start, stop, str(folder / f"{start}_{stop}.npy"))


def test_frame_loss_does_not_depend_on_the_batch(shards, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    column = mae_loss_column(str(checkpoint), masks=3, device="cpu")
    parts = []
    for batch, spans in ((32, [(0, COUNT)]), (3, [(0, 4), (4, COUNT)])):
        monkeypatch.setitem(frame_scores.BATCH, "cpu", batch)
        losses = []
        for start, stop in spans:
            piece = chunk(shards, start, stop, tmp_path)
            column.job(column.argument(piece), lambda amount: None)
            losses.append(np.load(piece.target))
        parts.append(np.concatenate(losses))
    np.testing.assert_allclose(parts[0], parts[1], rtol=1e-5)
    assert len(set(parts[0].tolist())) == COUNT


def test_a_loss_is_the_mean_over_masks(shards, checkpoint: Path, tmp_path: Path) -> None:
    column = mae_loss_column(str(checkpoint), masks=64, device="cpu")
    piece = chunk(shards, 0, 2, tmp_path)
    column.job(column.argument(piece), lambda amount: None)
    model = Pixio.load(checkpoint).eval()
    image = torch.from_numpy(center_crop(shards.image(0), 64))
    with torch.no_grad():
        drawn = model(image.expand(512, -1, -1, -1), torch.Generator().manual_seed(0)).loss_per_image
    error = float(drawn.std()) * (1 / 64 + 1 / 512) ** 0.5
    assert np.load(piece.target)[0] == pytest.approx(float(drawn.mean()), abs=4.5 * error)


@pytest.mark.slow
def test_curate_uses_embeddings_for_duplicates_and_losses_for_weights(shards, checkpoint: Path, tmp_path: Path) -> None:
    source = EncoderSource(kind=EncoderKind.RANDOM, encoder=ENCODER)
    column = embedding_column(source, 64, device="cpu")
    assert column is not None
    settings = CurateConfig(
        data=str(shards.path),
        out=str(tmp_path / "out"),
        min_side=64,
        min_sharpness=None,
        max_similarity=0.99999,
        workers=1,
    )
    report = curate(settings, [mae_loss_column(str(checkpoint), 2, "cpu"), column])
    assert report.dropped["near_duplicate"] == 1
    selection = Selection.open(tmp_path / "out")
    losses = np.load(tmp_path / "out" / "scores" / "mae_loss.npy")
    assert np.flatnonzero(np.load(tmp_path / "out" / "reasons.npy")).tolist() == [9]
    np.testing.assert_array_equal(selection.acceptance[:9], np.minimum(losses[:9], 1))
    np.testing.assert_allclose(read_losses(tmp_path / "out" / "sidecars", shards), losses, atol=1e-6)
    vectors = np.load(tmp_path / "out" / "scores" / "embedding.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=1e-3)


@pytest.mark.slow
def test_scores_of_models_do_not_depend_on_the_workers(shards, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(score_columns, "SMALLEST_CHUNK", 3)
    monkeypatch.setattr(score_columns, "LARGEST_CHUNK", 3)
    column = mae_loss_column(str(checkpoint), 2, "cpu")
    for workers in (1, 2):
        compute_column(column, shards, tmp_path / str(workers), Workers(workers=workers))
    files = [(tmp_path / str(workers) / "mae_loss.npy").read_bytes() for workers in (1, 2)]
    assert files[0] == files[1]


def test_an_embedding_is_the_direction_of_the_mean_class_token() -> None:
    cls, patches = torch.randn(3, 2, 5), torch.randn(3, 4, 4, 5)
    mean = cls.mean(1)
    torch.testing.assert_close(embed_features(Features(cls, patches)), mean / mean.norm(dim=1, keepdim=True))
    mean = patches.mean((1, 2))
    torch.testing.assert_close(embed_features(Features(cls[:, :0], patches)), mean / mean.norm(dim=1, keepdim=True))


def test_mistakes(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mae_masks must be at least 1"):
        mae_loss_column(str(checkpoint), 0)
    with pytest.raises(UserError, match=str(tmp_path)):
        mae_loss_column(str(tmp_path), 1)
    source = EncoderSource(kind=EncoderKind.RANDOM, encoder=ENCODER)
    with pytest.raises(UserError, match="whole patches"):
        embedding_column(source, 65)
    assert embedding_column(EncoderSource(kind=EncoderKind.NONE), 64) is None


def test_a_gpu_scores_in_half_precision_and_says_so(shards, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    """Autocast is all that a GPU changes; the same on a CPU keeps to the score in full precision."""
    assert "precision" not in mae_loss_column(str(checkpoint), 1, "cpu").settings
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        settings = frame_scores._ComputeSettings("cpu", dtype)
        monkeypatch.setattr(frame_scores, "_compute_settings", lambda *arguments, settings=settings: settings)
        column = mae_loss_column(str(checkpoint), 4, "cpu")
        piece = chunk(shards, 0, COUNT, tmp_path)
        column.job(column.argument(piece), lambda amount: None)
        losses.append(np.load(piece.target))
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.02)


@pytest.mark.parametrize(("here", "bfloat16"), [("cpu", False), ("cuda", True), ("cuda", False)])
@pytest.mark.parametrize(
    ("executor", "device", "gpus", "computes"),
    [
        (Executor.RAY, "auto", 0.0, "cpu"),
        (Executor.RAY, "auto", 0.5, "cuda"),
        (Executor.RAY, "cuda", 1.0, "cuda"),
        (Executor.RAY, "cpu", 1.0, "cpu"),
        (Executor.PROCESSES, "auto", 0.5, None),
    ],
)
def test_precision_is_that_of_the_worker(
    here: str,
    bfloat16: bool,
    executor: Executor,
    device: str,
    gpus: float,
    computes: str | None,
    checkpoint: Path,
    monkeypatch,
) -> None:
    """Ray's workers by what they reserve, processes of this machine (None) by what is `here`."""
    monkeypatch.setattr(frame_scores, "pick_device", lambda name: torch.device(here))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)
    source = EncoderSource(kind=EncoderKind.RANDOM, encoder=ENCODER)
    columns = (
        mae_loss_column(str(checkpoint), 1, device, gpus, executor),
        embedding_column(source, 64, device, gpus, executor),
    )
    for column in columns:
        assert column is not None
        computing = computes or here
        half = computing == "cuda" and (bfloat16 or executor is Executor.RAY)
        assert column.settings.get("precision") == ("bfloat16" if half else None)
        told = column.argument(Chunk("data", "train", 0, 1, "target")).compute
        assert (told.device, told.dtype) == (computing, torch.bfloat16 if half else torch.float32)


def test_device_cuda_on_ray_without_reserved_gpus_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="device=cuda with executor=ray needs gpus=1"):
        mae_loss_column(str(checkpoint), 1, "cuda", 0.0, Executor.RAY)
    with pytest.raises(UserError, match="device"):
        mae_loss_column(str(checkpoint), 1, "tpu", 1.0, Executor.RAY)
