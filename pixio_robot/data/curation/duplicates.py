"""Finds duplicate frames: within a video by perceptual hash, across videos by cosine similarity of embeddings.

Shapes: n frames, d width of an embedding, p pairs.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch.nn import functional

from pixio_robot.machine import disable_tf32, to_device

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
    frame (NaN and NO_FRAME if not compared). original int64 (n,): the kept frame that it repeats, or NO_FRAME."""

    similarity: np.ndarray
    neighbour: np.ndarray
    original: np.ndarray


# The cosines of TF32 are off by up to 1e-3, too much for a limit near 1: a GPU must agree with a CPU.
@disable_tf32()
def near_duplicates(
    embeddings: np.ndarray, videos: np.ndarray, usable: np.ndarray, limit: float, device: torch.device | None = None
) -> NearDuplicates:
    """Find near-duplicate frames of different videos: cosine of at least `limit`, by exact search without an index.

    embeddings (n, d), of any norm but 0. In order, a frame is a duplicate if it reaches the limit with an earlier frame
    of another video that is none itself; `original` is the first such frame. (So every dropped frame is represented by
    a kept one. Dropping all but one of each connected group would not do: neighbouring views of a room are similar, and
    chains of them lead from one end of it to the other.) Repeats within a video are for `still_frames` to find.
    Cost: n ** 2 * d multiplications; memory besides the results: two blocks of BLOCK rows, or on a GPU what it has
    room for.
    """
    device = device or torch.device("cpu")
    rows = np.flatnonzero(usable)
    owners = torch.from_numpy(np.ascontiguousarray(videos[rows]).astype(np.int64)).to(device)
    original = np.full(len(rows), NO_FRAME)
    best = torch.full((len(rows),), -torch.inf, device=device)
    neighbour = torch.full((len(rows),), NO_FRAME, device=device)

    def vectors(start: int, number: int) -> torch.Tensor:
        # Sent in half precision, and normalised there: that changes their norms slightly.
        stored = torch.from_numpy(embeddings[rows[start : start + number]])
        return functional.normalize(to_device(stored, device).float(), dim=1)

    def note(start: int, similarity: torch.Tensor, other: torch.Tensor) -> None:
        span = slice(start, start + len(similarity))
        better = similarity > best[span]
        best[span] = torch.where(better, similarity, best[span])
        neighbour[span] = torch.where(better, other, neighbour[span])

    held = _rows_held(device, embeddings.shape[1])
    for group in range(0, len(rows), held):
        lefts = [vectors(start, BLOCK) for start in range(group, min(group + held, len(rows)), BLOCK)]
        for second in range(group, len(rows), BLOCK):
            inside = (second - group) // BLOCK
            right = lefts[inside] if inside < len(lefts) else vectors(second, BLOCK)
            for first, left in zip(range(group, second + 1, BLOCK), lefts, strict=False):
                cosine = left @ right.T
                same = owners[first : first + BLOCK, None] == owners[None, second : second + BLOCK]
                cosine.masked_fill_(same, -torch.inf)
                similarity, other = cosine.max(dim=1)
                note(first, similarity, other + second)
                similarity, other = cosine.max(dim=0)
                note(second, similarity, other + first)
                # Sorted by the first of the two, which all blocks before this one have been compared with.
                pairs = (cosine >= limit).nonzero().cpu().numpy()
                _drop_repeats(original, pairs[:, 0] + first, pairs[:, 1] + second)

    result = NearDuplicates(
        np.full(len(usable), np.nan, np.float32),
        np.full(len(usable), NO_FRAME, np.int64),
        np.full(len(usable), NO_FRAME, np.int64),
    )
    nearest = neighbour.cpu().numpy()
    compared = nearest != NO_FRAME
    result.similarity[rows[compared]] = best.cpu().numpy()[compared]
    result.neighbour[rows[compared]] = rows[nearest[compared]]
    repeats = original != NO_FRAME
    result.original[rows[repeats]] = rows[original[repeats]]
    return result


def _rows_held(device: torch.device, width: int) -> int:
    """Number of rows, a multiple of BLOCK, that stay on the device while all later ones pass by.

    Each pass reads the embeddings from the host again. A block's products take a GPU less time than the host needs to
    gather and send one, so that many blocks have to share it; a CPU computes longer than it reads.
    """
    if device.type == "cpu":
        return BLOCK
    free, _ = torch.cuda.mem_get_info(device)
    return max(free // 2 // (4 * width * BLOCK), 1) * BLOCK


def _drop_repeats(original: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Note the first kept frame that each frame repeats. original int64 (n,): changed in place; first and second (p,):
    similar frames, sorted by first."""
    earlier = first < second
    first, second = first[earlier], second[earlier]
    kept, starts = np.unique(first, return_index=True)
    for frame, repeating in zip(kept.tolist(), np.split(second, starts[1:]), strict=False):
        # Looked up here, as an earlier round may have dropped it.
        if original[frame] == NO_FRAME:
            original[repeating[original[repeating] == NO_FRAME]] = frame
