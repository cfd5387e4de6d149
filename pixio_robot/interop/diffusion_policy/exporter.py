"""Export of a demonstration store to a diffusion_policy replay buffer, one episode at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixio_robot.data.actions.named_columns import group_columns_by_key
from pixio_robot.data.demos.editing.rewrite import open_for_streaming
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import Conversion, write_atomically
from pixio_robot.interop.diffusion_policy.codecs import BLOSC, LOSSY, WRITABLE, check_writable, decode, encode
from pixio_robot.interop.diffusion_policy.container import EPISODE_ENDS, Write, create_container
from pixio_robot.interop.diffusion_policy.importer import ACTION, REWARD, STATE
from pixio_robot.interop.diffusion_policy.settings import INFOS, SPEC, ExportConfig
from pixio_robot.interop.diffusion_policy.zarr_arrays import ArrayWriter, write_json
from pixio_robot.progress import track_progress
from pixio_robot.types import Episode

CHUNK_BYTES = 2_000_000
"""diffusion_policy's target chunk size for arrays other than images."""
_GROUP = {"zarr_format": 2}


def export_demos(store_path: Path, out: Path, config: ExportConfig) -> Conversion:
    """Export the store. Raises UserError for an unsuitable store or a missing codec, and then writes nothing."""
    store = open_for_streaming(store_path)
    compressor = check_writable(config.codec)
    parts = (
        group_columns_by_key(store.spec.state_names)
        if config.state_keys
        else {STATE: list(range(store.spec.state_dim))}
    )
    _check_keys(store, parts)
    zipped = config.zip or out.suffix == ".zip"
    with write_atomically(out) as temporary, create_container(temporary, zipped) as write:
        for group in ("", "data/", "meta/"):
            write_json(write, f"{group}.zgroup", _GROUP)
        infos = [dict(store.info(number)) for number in range(len(store))]
        write_json(write, ".zattrs", {SPEC: store.spec.to_json(), INFOS: infos})
        _write_meta(write, store)
        steps = int(store.lengths.sum())
        cameras = {
            name: ArrayWriter(write, f"data/{name}", (steps, *shape), np.uint8, 1, compressor)
            for name, shape in ((name, store.images_shape(0, name)[1:]) for name in store.spec.cameras)
        }
        values = {
            key: ArrayWriter(write, f"data/{key}", (steps, *shape), np.float32, _rows(shape, steps), BLOSC)
            for key, shape in (
                *((key, (len(columns),)) for key, columns in parts.items()),
                (ACTION, (store.spec.action_dim,)),
                (REWARD, ()),
            )
        }
        for number in track_progress(range(len(store)), f"write {out}"):
            _append(store.episode(number), parts, cameras, values)
        for writer in (*cameras.values(), *values.values()):
            writer.close()
    notes = ["the DemoSpec, with names and units, is kept in attributes that only pixio-robot reads"]
    if config.codec in LOSSY:
        notes += [_rounding_note(store, camera, config.codec) for camera in store.spec.cameras]
    return Conversion(episodes=len(store), frames=steps, notes=notes)


def _rounding_note(store: DemoStore, camera: str, codec: str) -> str:
    """A note on how much the codec changes the first frame."""
    frame = store.images(0, camera, 0, 1)
    after = decode(WRITABLE[codec], encode(WRITABLE[codec], frame))
    error = np.abs(frame[0].astype(np.int16) - after)
    return f"data/{camera}: {codec} changes pixels by {error.mean():.1f} of 255 on average, {error.max()} at most"


def _check_keys(store: DemoStore, parts: dict[str, list[int]]) -> None:
    """Raise UserError if two arrays would have the same name: they all share one group."""
    names = [*store.spec.cameras, *parts, ACTION, REWARD]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two arrays of {store.path} would both become data/{name}: rename the camera first.")


def _rows(shape: tuple[int, ...], steps: int) -> int:
    row_bytes = 4 * int(np.prod(shape, dtype=np.int64))
    return max(1, min(steps, CHUNK_BYTES // row_bytes))


def _append(
    episode: Episode, parts: dict[str, list[int]], cameras: dict[str, ArrayWriter], values: dict[str, ArrayWriter]
) -> None:
    for name, writer in cameras.items():
        writer.append(episode.images[name])
    for key, columns in parts.items():
        values[key].append(episode.state[:, columns])
    values[ACTION].append(episode.actions)
    values[REWARD].append(episode.rewards)


def _write_meta(write: Write, store: DemoStore) -> None:
    for key, values in (
        (EPISODE_ENDS, np.cumsum(store.lengths)),
        ("meta/success", np.array(store.successes, np.bool_)),
        ("meta/seed", np.array(store.seeds, np.int64)),
    ):
        writer = ArrayWriter(write, key, values.shape, values.dtype, len(values), BLOSC)
        writer.append(values)
        writer.close()
