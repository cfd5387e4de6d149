"""Settings for importing and exporting LeRobotDatasets."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixio_robot.choice import Choice
from pixio_robot.interop.lerobot.features import ACTION, REWARD, SUCCESS


class Images(Choice):
    """image: lossless PNG inside the rows. video: mp4, small but lossy."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(kw_only=True)
class ImportConfig:
    """cameras: names, separated by commas; default all.
    state: keys, separated by commas and concatenated; default observation.state.
    action, reward, success: keys of the columns.
    without_success: success of every episode if the dataset has no success column.
    task, robot: replace the dataset's own names.
    control_hz: replaces the dataset's fps, where that is not the rate at which the actions were executed.
    tolerance_s: largest allowed difference between the timestamps of a row and of its video frame.
    """

    cameras: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    action: str = ACTION
    reward: str = REWARD
    success: str = SUCCESS
    without_success: bool = True
    task: str = ""
    robot: str = ""
    control_hz: float = 0.0
    tolerance_s: float = 1e-4


@dataclass(kw_only=True)
class ExportConfig:
    """repo_id: name of the dataset; default local/ and the name of the folder.
    images: image (lossless PNG) or video.
    codec, crf, pix_fmt, gop: lerobot's settings of the video encoder.
    """

    repo_id: str = ""
    images: Images = Images.IMAGE
    codec: str = "libsvtav1"
    crf: int = 30
    pix_fmt: str = "yuv420p"
    gop: int = 2
