"""The words of `curation.html` and of the command's summary."""

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
        "Bits, 0 to 9: how many different colours a frame uses. Text, screens, blank walls and a covered lens are low. "
        "Raise the threshold while the dropped frames show nothing worth learning; lower it when you would miss some.",
    ),
    "min_sharpness": ScoreText(
        "Sharpness",
        "How strong fine detail is. Motion blur and a lens out of focus are low, but so is a clean surface: keep the "
        "threshold where the dropped frames are truly unusable, since the camera of a moving head is never sharp.",
    ),
    "max_dark": ScoreText(
        "Dark share",
        "Share of the pixels that are nearly black. Lower the threshold when the frames that just pass show nothing.",
    ),
    "max_bright": ScoreText(
        "Bright share",
        "Share of the pixels that are nearly white. Lower the threshold when the frames that just pass show nothing.",
    ),
    "min_side": ScoreText(
        "Shorter side",
        "Pixels. Smaller frames would be enlarged for most crops. Pixio asks for 320 on both sides; smaller footage "
        "needs a smaller value.",
    ),
    "max_hash_distance": ScoreText(
        "Change within the video",
        "Bits of 64 by which a frame's outline differs from the last kept frame of its video. Raise the threshold "
        "while the dropped frames only repeat; lower it when a hand or an object moved between the two.",
    ),
    "max_similarity": ScoreText(
        "Likeness to other videos",
        "Cosine between a frame and the most alike frame of any other video, in the eyes of the encoder. Raise the "
        "threshold when linked pairs show different scenes. Everything linked, also through others, is one group; its "
        "first video stays.",
    ),
    "mae_loss": ScoreText(
        "Reconstruction loss",
        "What the given Pixio still gets wrong. A frame of loss l is taken with probability min(1, l) each time it "
        "comes up, so what is common and easy is seen less often. There is no threshold to set.",
    ),
}
