"""Show one episode in the rerun viewer: the images of every camera and curves of state, actions and rewards."""

from __future__ import annotations

import re
from pathlib import Path

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file

TIMELINE = "time"
JPEG_QUALITY = 90


def stream(store: DemoStore, episode: int, save: Path | None) -> None:
    """Write the episode to the file `save`, or start a viewer. Raises UserError if there is no such episode."""
    try:
        import rerun
    except ImportError:
        raise UserError("`data view` needs pip install 'pixio-robot[view]'.") from None
    if not 0 <= episode < len(store):
        raise UserError(f"{store.path} has {len(store)} episodes, so there is no episode={episode}.")
    # rerun itself would replace other characters too, but with a warning.
    recording = rerun.RecordingStream(re.sub(r"[^A-Za-z0-9_-]+", "-", f"{store.spec.task}-episode-{episode}"))
    if save is None:
        recording.spawn()
        _send(recording, store, episode)
        return
    with atomic_file(save) as temporary:
        recording.save(temporary)
        _send(recording, store, episode)
        recording.disconnect()


def _send(recording, store: DemoStore, episode: int) -> None:
    import rerun

    spec = store.spec
    curves = {"state": (spec.state_names, store.state(episode)), "actions": (spec.action_names, store.actions(episode))}
    for which, (names, _) in curves.items():
        recording.log(which, rerun.SeriesLines(names=list(names)), static=True)
    for step in range(int(store.lengths[episode])):
        recording.set_time(TIMELINE, duration=step / spec.control_hz)
        for camera in spec.cameras:
            frame = store.images(episode, camera, step, step + 1)[0]
            recording.log(f"images/{camera}", rerun.Image(frame).compress(jpeg_quality=JPEG_QUALITY))
        for which, (_, values) in curves.items():
            recording.log(which, rerun.Scalars(values[step]))
        recording.log("rewards", rerun.Scalars(store.rewards(episode)[step]))
    recording.flush()
