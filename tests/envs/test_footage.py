from pathlib import Path

import av
import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.recording import footage
from envs.recording.footage import FootageConfig, record_footage
from envs.registry import make_env
from pixio_robot.errors import UserError

pytestmark = pytest.mark.sim
ENV = EnvConfig(task="TabletopPick", variation=Variation.CLUTTERED)


def config(out, **changes):
    settings = {"videos": 2, "steps_per_video": 12, "image_size": 64, "cameras": ["hand", "front"], "workers": 1}
    return FootageConfig(out=str(out), **settings | changes)


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_footage_is_filmed_resumed_and_repeated(tmp_path):
    report = record_footage(ENV, config(tmp_path / "one"))
    assert (report.frames, report.recorded, len(report.videos)) == (48, 2, 4)
    frames = decode(report.videos[0])
    assert frames.shape == (12, 64, 64, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    content = {name: Path(name).read_bytes() for name in report.videos}
    (tmp_path / "one" / "video_00001_hand.mp4").unlink()
    (tmp_path / "one" / ".tmp-left.mp4").touch()
    again = record_footage(ENV, config(tmp_path / "one", videos=3))
    assert again.recorded == 2
    assert all(Path(name).read_bytes() == before for name, before in content.items())
    assert not list((tmp_path / "one").glob(".tmp-*"))


def test_other_footage_is_not_overwritten(tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(UserError, match="choose another"):
        record_footage(ENV, config(tmp_path))


def test_footage_of_other_settings_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(footage, "ordered_map", lambda *_: ())
    record_footage(ENV, config(tmp_path))
    record_footage(ENV, config(tmp_path, videos=5, workers=2))
    for other in ({"steps_per_video": 13}, {"image_size": 32}, {"fps": 10}, {"cameras": ["hand"]}, {"play_share": 0.0}):
        with pytest.raises(UserError, match="footage of another configuration"):
            record_footage(ENV, config(tmp_path, **other))
    for env, other in ((ENV, {"noise": 0.2}), (EnvConfig(task="TabletopPick"), {})):
        with pytest.raises(UserError, match="footage of another configuration"):
            record_footage(env, config(tmp_path, **other))


def test_no_two_videos_show_the_same_episode(monkeypatch):
    blind = EnvConfig(task="TabletopReach", cameras=[])
    env, seeds = make_env(blind), []
    reset = env.reset
    monkeypatch.setattr(env, "reset", lambda seed: seeds.append(seed) or reset(seed))
    monkeypatch.setattr(footage, "cached_env", lambda _: env)
    for number in range(3):
        frames = footage._frames(blind, config("x", steps_per_video=100, play_share=0.0), number)
        assert len(list(frames)) == 100
    assert len(set(seeds)) == len(seeds) > 3
    env.close()


def test_wrong_settings_are_named():
    for wrong in ({"videos": 0}, {"image_size": 63}, {"cameras": []}, {"cameras": ["head"]}, {"play_share": 2.0}):
        with pytest.raises(UserError):
            FootageConfig(**wrong)
