import imageio.v3 as iio
import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.recorder import CAPTION_HEIGHT, EpisodeRecorder, caption_frames, write_video
from pixio_robot.evaluation.rollout import run_episodes
from pixio_robot.types import EpisodeResult, Frame

SEEDS = list(range(40))


def test_videos_decode_with_one_frame_per_observation(line_pool, seeking_actor, tmp_path):
    pool = line_pool(4)
    recorder = EpisodeRecorder(tmp_path / "videos", pool.spec, videos=4, camera="front")
    results = run_episodes(pool, seeking_actor(noise=4.0), SEEDS, recorder=recorder)
    filmed = [result for result in results if result.video]
    assert sum(result.success for result in filmed) == 2
    assert sum(not result.success for result in filmed) == 2
    for result in filmed:
        video = iio.imread(tmp_path / result.video, plugin="pyav")
        assert video.shape == (result.steps + 1, 256 + CAPTION_HEIGHT, 256, 3)
        content = (tmp_path / result.video).read_bytes()
        assert content.find(b"moov") < content.find(b"mdat")  # plays before it is read whole
        assert iio.immeta(tmp_path / result.video, plugin="pyav")["video_format"] == "yuv420p"
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(
        result.video.removeprefix("videos/") for result in filmed
    )


def test_rendering_stops_when_the_quotas_are_full(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2)
    recorder = EpisodeRecorder(tmp_path / "videos", pool.spec, videos=1, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS, recorder=recorder)
    assert pool.rendered <= sum(result.steps + 1 for result in results[:3])


def test_a_policy_without_failures_is_not_filmed_for_ever(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2)
    recorder = EpisodeRecorder(tmp_path / "videos", pool.spec, videos=2, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS, recorder=recorder)
    assert all(result.success for result in results)
    assert sum(result.video is not None for result in results) == 1
    assert pool.rendered <= sum(result.steps + 1 for result in results[:9])


def test_a_lost_episode_leaves_no_frames_behind(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2, lose={(0, 2): 2})
    recorder = EpisodeRecorder(tmp_path / "videos", pool.spec, videos=2, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS[:6], recorder=recorder)
    filmed = next(result for result in results if result.video)
    assert len(iio.imread(tmp_path / filmed.video, plugin="pyav")) == filmed.steps + 1


def test_no_videos_asked_means_none_and_no_camera_needed(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2)
    recorder = EpisodeRecorder(tmp_path / "videos", pool.spec, videos=0, camera="nowhere")
    run_episodes(pool, seeking_actor(), SEEDS[:4], recorder=recorder)
    assert pool.rendered == 0
    assert not (tmp_path / "videos").exists()


def test_videos_of_an_interrupted_evaluation_count(make_spec, tmp_path):
    done = [EpisodeResult(seed=1, success=True, steps=3, episode_return=0.0, video="videos/seed_1.mp4")]
    recorder = EpisodeRecorder(tmp_path / "videos", make_spec(), videos=1, camera="front", done=done)
    assert not recorder.begin(2)


def test_unknown_camera_lists_the_cameras(make_spec, tmp_path):
    with pytest.raises(UserError, match=r"'frnt'. Did you mean 'front'\?"):
        EpisodeRecorder(tmp_path, make_spec(), videos=1, camera="frnt")
    recorder = EpisodeRecorder(tmp_path, make_spec(), videos=1, camera="front")
    recorder.begin(3)
    with pytest.raises(UserError, match="no image of camera 'front'"):
        recorder.add(3, Frame({}, np.zeros(2, np.float32)))


@pytest.mark.parametrize("shape", [(48, 48), (33, 47), (301, 517), (480, 640)])
def test_captions_leave_the_image_alone_and_sides_even(shape, tmp_path):
    image = np.full((*shape, 3), (10, 200, 90), np.uint8)
    captioned = caption_frames([image, image], 100_123, success=False)
    height, width, _ = captioned[0].shape
    assert height % 2 == width % 2 == 0
    assert width >= 256
    assert (captioned[0][:-CAPTION_HEIGHT] == image[0, 0]).all()
    write_video(tmp_path / "a.mp4", captioned, 20.0)
    decoded = iio.imread(tmp_path / "a.mp4", plugin="pyav")
    assert np.abs(decoded[0, : height - CAPTION_HEIGHT - 8].astype(int) - image[0, 0]).mean() < 6
