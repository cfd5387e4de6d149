"""Finds duplicate frames: within a video by perceptual hash, across videos by cosine similarity of embeddings.

Shapes: n frames, d width of an embedding, p pairs.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch.nn import functional

from pixio_robot.machine import full_float32

BLOCK = 4096
HASH_BLOCK = 1_000_000
NO_FRAME = -1
NOT_COMPARED = -1


@dataclasses.dataclass(frozen=True)
class StillFrames:
    """distance int16 (n,): Hamming distance in bits to the last kept frame of the same video; compared_with int64 (n,):
    that frame. NOT_COMPARED and NO_FRAME for the first frame of a video and for frames already dropped. repeats bool
    (n,): whether the distance is within the limit."""

    distance: np.ndarray
    compared_with: np.ndarray
    repeats: np.ndarray


def still_frames(hashes: np.ndarray, videos: np.ndarray, usable: np.ndarray, limit: int | None) -> StillFrames:
    """Find frames within `limit` bits of the last kept frame of the same video; a limit of None drops no frame.

    hashes uint64 (n,) and videos (n,), in order of video and time; usable bool (n,): frames not dropped yet.
    Frames are compared with the last *kept* one, so that a slow movement is thinned out rather than dropped entirely.
    """
    distance, reference = np.full(len(hashes), NOT_COMPARED, np.int16), np.full(len(hashes), NO_FRAME, np.int64)
    largest = NOT_COMPARED if limit is None else limit
    kept_row, kept_hash, kept_video = NO_FRAME, 0, None
    for start in range(0, len(hashes), HASH_BLOCK):
        rows = start + np.flatnonzero(usable[start : start + HASH_BLOCK])
        for row, value, video in zip(rows.tolist(), hashes[rows].tolist(), videos[rows].tolist(), strict=True):
            if video == kept_video:
                bits = (value ^ kept_hash).bit_count()
                distance[row], reference[row] = bits, kept_row
                if bits <= largest:
                    continue
            kept_row, kept_hash, kept_video = row, value, video
    return StillFrames(distance, reference, (distance != NOT_COMPARED) & (distance <= largest))


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """similarity float32 (n,) and neighbour int64 (n,): cosine to the most similar frame of any other video, and that
    frame (NaN and NO_FRAME if not compared). original int64 (n,): the frame kept in its place, or NO_FRAME."""

    similarity: np.ndarray
    neighbour: np.ndarray
    original: np.ndarray


# The cosines of TF32 are off by up to 1e-3, too much for a limit near 1: a GPU must agree with a CPU.
@full_float32()
def near_duplicates(
    embeddings: np.ndarray, videos: np.ndarray, usable: np.ndarray, limit: float, device: torch.device | None = None
) -> NearDuplicates:
    """Find near-duplicate frames of different videos: cosine of at least `limit`, by exact search without an index.

    embeddings (n, d), of any norm but 0. Groups are the connected components of all such pairs. The first frame of a
    group is kept, with the group's other frames of the same video (whether those repeat each other is decided by the
    hash); the rest are duplicates of it.
    Cost: n ** 2 * d multiplications; memory besides the results: two blocks of BLOCK rows.
    """
    rows = np.flatnonzero(usable)
    owners = torch.from_numpy(np.ascontiguousarray(videos[rows]).astype(np.int64)).to(device)
    parent = np.arange(len(rows))
    best, neighbour = np.full(len(rows), -np.inf, np.float32), np.full(len(rows), NO_FRAME, np.int64)

    def block(start: int) -> torch.Tensor:
        vectors = torch.from_numpy(embeddings[rows[start : start + BLOCK]].astype(np.float32)).to(device)
        return functional.normalize(vectors, dim=1)  # half precision changes their norms slightly

    def note(start: int, similarity: torch.Tensor, other: torch.Tensor) -> None:
        span = slice(start, start + len(similarity))
        values, others = similarity.cpu().numpy(), other.cpu().numpy()
        better = values > best[span]
        best[span][better], neighbour[span][better] = values[better], others[better]

    for first in range(0, len(rows), BLOCK):
        left = block(first)
        for second in range(first, len(rows), BLOCK):
            right = left if second == first else block(second)
            cosine = left @ right.T
            same = owners[first : first + BLOCK, None] == owners[None, second : second + BLOCK]
            cosine.masked_fill_(same, -torch.inf)
            similarity, other = cosine.max(dim=1)
            note(first, similarity, other + second)
            similarity, other = cosine.max(dim=0)
            note(second, similarity, other + first)
            pairs = (cosine >= limit).nonzero().cpu().numpy()
            unite(parent, pairs[:, 0] + first, pairs[:, 1] + second)
    roots = _roots(parent, np.arange(len(rows)))
    repeats = videos[rows] != videos[rows[roots]] if len(rows) else np.zeros(0, bool)

    found = NearDuplicates(
        np.full(len(usable), np.nan, np.float32),
        np.full(len(usable), NO_FRAME, np.int64),
        np.full(len(usable), NO_FRAME, np.int64),
    )
    compared = neighbour != NO_FRAME
    found.similarity[rows[compared]] = best[compared]
    found.neighbour[rows[compared]] = rows[neighbour[compared]]
    found.original[rows[repeats]] = rows[roots[repeats]]
    return found


def unite(parent: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Union-find for many pairs at once; the root of a group is its smallest member, whatever the order of pairs.

    parent int64 (n,), changed in place, where parent[i] <= i; first and second int64 (p,).
    """
    while len(first):
        first, second = _roots(parent, first), _roots(parent, second)
        apart = first != second
        first, second = first[apart], second[apart]
        np.minimum.at(parent, np.maximum(first, second), np.minimum(first, second))


def _roots(parent: np.ndarray, members: np.ndarray) -> np.ndarray:
    roots = parent[members]
    while True:
        further = parent[roots]
        if np.array_equal(further, roots):
            parent[members] = roots  # path compression
            return roots
        roots = further
