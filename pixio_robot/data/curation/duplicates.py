"""Which frames repeat another: within a video by perceptual hash, across videos by the cosine of embeddings.

Shapes: n frames, d width of an embedding, p pairs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

BLOCK = 4096
HASH_BLOCK = 1_000_000
NO_FRAME = -1
NOT_COMPARED = -1


@dataclasses.dataclass(frozen=True)
class StillFrames:
    """distance int16 (n,): bits by which a frame differs from the last kept one of its video, and compared_with int64
    (n,) that frame; NOT_COMPARED and NO_FRAME for the first of a video and for frames that are out already.
    repeats bool (n,): within the limit."""

    distance: np.ndarray
    compared_with: np.ndarray
    repeats: np.ndarray


def still_frames(hashes: np.ndarray, videos: np.ndarray, usable: np.ndarray, limit: int | None) -> StillFrames:
    """Frames within `limit` bits of the last kept frame of the same video; None: none are.

    hashes uint64 (n,) and videos (n,), in order of video and time; usable bool (n,): frames that are in so far.
    Compared with the last *kept* frame, so that a slow movement is thinned out and not dropped as a whole.
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
    """similarity float32 (n,) and neighbour int64 (n,): cosine to the most alike frame of any other video, and that
    frame (NaN, NO_FRAME: not compared). original int64 (n,): the frame that stays in its place, or NO_FRAME."""

    similarity: np.ndarray
    neighbour: np.ndarray
    original: np.ndarray


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """TF32's cosines are off by up to 1e-3, which at a limit near 1 decides: a GPU is to find what a CPU does."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@_full_float32()
def near_duplicates(
    embeddings: np.ndarray, videos: np.ndarray, usable: np.ndarray, limit: float, device: torch.device | None = None
) -> NearDuplicates:
    """Groups of frames of different videos, linked by cosines of at least `limit`; exact, no index.

    embeddings (n, d), of any length but 0. A group is all that is linked, also through others. Its first frame stays,
    with the frames of the same video in the group (whether those repeat each other is for the hash to say); the rest
    repeat it.
    The cost is n ** 2 * d multiplications; the memory, beside the results, two blocks of BLOCK rows.
    """
    rows = np.flatnonzero(usable)
    owners = torch.from_numpy(np.ascontiguousarray(videos[rows]).astype(np.int64)).to(device)
    parent = np.arange(len(rows))
    best, neighbour = np.full(len(rows), -np.inf, np.float32), np.full(len(rows), NO_FRAME, np.int64)

    def block(start: int) -> torch.Tensor:
        vectors = torch.from_numpy(embeddings[rows[start : start + BLOCK]].astype(np.float32)).to(device)
        return functional.normalize(vectors, dim=1)  # half precision shortens or lengthens them a little

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
            parent[members] = roots  # shortens the way for the next time
            return roots
        roots = further
