"""The texts of `curation.html` and of the command's summary."""

from __future__ import annotations

from typing import NamedTuple

from pixio_robot.data.curation.thresholds import Reason

REASON_TEXTS = {
    Reason.UNREADABLE: "unreadable",
    Reason.SMALL: "too small",
    Reason.DARK: "too dark",
    Reason.BRIGHT: "too bright",
    Reason.FEW_COLOURS: "too few colours",
    Reason.BLURRED: "blurred or without texture",
    Reason.STILL: "repeats an earlier frame of its video",
    Reason.NEAR_DUPLICATE: "repeats a frame of another video",
}


class ScoreText(NamedTuple):
    title: str
    explanation: str


SCORE_TEXTS = {
    "min_entropy": ScoreText(
        "Colour entropy",
        "Bits, 0 to 9: how varied a frame's colours are. Text, screens, blank walls and a covered lens score low. "
        "Raise the threshold as long as the dropped frames show nothing worth learning; lower it if good frames are "
        "dropped.",
    ),
    "min_sharpness": ScoreText(
        "Sharpness",
        "Amount of fine detail. Motion blur and an out-of-focus lens score low, but so does a plain surface: choose a "
        "threshold that drops only unusable frames, since head-mounted cameras are rarely sharp.",
    ),
    "max_dark": ScoreText(
        "Dark share",
        "Fraction of pixels that are nearly black. Lower the threshold if the frames that just pass show nothing.",
    ),
    "max_bright": ScoreText(
        "Bright share",
        "Fraction of pixels that are nearly white. Lower the threshold if the frames that just pass show nothing.",
    ),
    "min_side": ScoreText(
        "Shorter side",
        "In pixels. Crops of smaller frames would mostly be enlarged. Pixio requires 320 on both sides; use a smaller "
        "value for smaller footage.",
    ),
    "max_hash_distance": ScoreText(
        "Change within the video",
        "Number of bits, of 64, in which a frame's perceptual hash differs from that of the last kept frame of its "
        "video. Raise the threshold as long as the dropped frames only repeat; lower it if a hand or an object moved "
        "between the two.",
    ),
    "max_similarity": ScoreText(
        "Similarity to other videos",
        "Cosine similarity between the encoder's embeddings of a frame and of the most similar frame of any other "
        "video. Raise the threshold if linked pairs show different scenes. A frame is dropped if it reaches the "
        "threshold with an earlier frame of another video that is kept.",
    ),
    "mae_loss": ScoreText(
        "Reconstruction loss",
        "Reconstruction loss of the given Pixio. An epoch includes a frame of loss l with probability min(1, l), so "
        "common and easy frames are seen less often. There is no threshold to set.",
    ),
}
