import imageio.v3 as iio
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.rollout import run_episodes
from pixio_robot.evaluation.video import ACTION_HEIGHT, CAPTION_HEIGHT
from pixio_robot.evaluation.video_recorder import VideoRecorder
from pixio_robot.types import EpisodeResult

SEEDS = list(range(40))


def test_videos_decode_with_one_frame_per_observation(line_pool, seeking_actor, tmp_path):
    pool = line_pool(4)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=4, camera="front")
    results = run_episodes(pool, seeking_actor(noise=4.0), SEEDS, watchers=[recorder])
    recorder.promote_spares(results)
    filmed = [result for result in results if result.video]
    assert sum(result.success for result in filmed) == 2
    assert sum(not result.success for result in filmed) == 2
    for result in filmed:
        video = iio.imread(tmp_path / result.video, plugin="pyav")
        assert video.shape == (result.steps + 1, 256 + CAPTION_HEIGHT + ACTION_HEIGHT, 256, 3)
        content = (tmp_path / result.video).read_bytes()
        assert content.find(b"moov") < content.find(b"mdat")  # plays before it is read whole
        assert iio.immeta(tmp_path / result.video, plugin="pyav")["video_format"] == "yuv420p"
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(
        result.video.removeprefix("videos/") for result in filmed
    )


def test_rendering_stops_when_the_quotas_are_full(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=1, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS, watchers=[recorder])
    assert pool.rendered <= sum(result.steps + 1 for result in results[:3])


def test_a_policy_without_failures_is_not_filmed_for_ever(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=2, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS, watchers=[recorder])
    assert all(result.success for result in results)
    assert sum(result.video is not None for result in results) == 1
    assert len(recorder.promote_spares(results)) == 1
    assert pool.rendered <= sum(result.steps + 1 for result in results[:9])


def test_a_lost_episode_leaves_no_frames_behind(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2, lose={(0, 2): 2})
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=2, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS[:6], watchers=[recorder])
    filmed = next(result for result in results if result.video)
    assert len(iio.imread(tmp_path / filmed.video, plugin="pyav")) == filmed.steps + 1


def test_no_videos_asked_means_none_and_no_camera_needed(line_pool, seeking_actor, tmp_path):
    pool = line_pool(2)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=0, camera="nowhere")
    run_episodes(pool, seeking_actor(), SEEDS[:4], watchers=[recorder])
    assert pool.rendered == 0
    assert not (tmp_path / "videos").exists()


def test_videos_of_an_interrupted_evaluation_count(make_spec, tmp_path):
    end = {"steps": 3, "episode_return": 0.0, "highest_reward": 0.0}
    done = [EpisodeResult(seed=1, success=True, video="videos/seed_1.mp4", **end)]
    recorder = VideoRecorder(tmp_path / "videos", make_spec(), videos=1, camera="front", done=done)
    assert not recorder.begin(2)


def failing(line_pool, seeking_actor, directory, seeds, videos, slots=2, done=()):
    """An actor that walks at random fails on all of these; the recorder, and the results of the seeds played now."""
    pool = line_pool(slots)
    recorder = VideoRecorder(directory / "videos", pool.spec, videos=videos, camera="front", done=done)
    results = run_episodes(pool, seeking_actor(noise=400.0), seeds, watchers=[recorder])
    assert not any(result.success for result in results)
    return recorder, results


HARD = [0, 2, 3, 4, 6, 7, 8]


def test_places_that_no_success_took_go_to_failures(line_pool, seeking_actor, tmp_path):
    recorder, results = failing(line_pool, seeking_actor, tmp_path, HARD, videos=4)
    assert sum(result.video is not None for result in results) == 2
    kept = recorder.promote_spares(results)
    assert len(kept) == 2
    filmed = {result.seed: result.video for result in results if result.video}
    assert len(filmed) == 4
    assert kept.items() <= filmed.items()
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(f"seed_{s}.mp4" for s in filmed)


def test_spare_films_survive_an_interruption(line_pool, seeking_actor, tmp_path):
    whole, _ = failing(line_pool, seeking_actor, tmp_path / "whole", HARD, videos=4, slots=1)
    _, done = failing(line_pool, seeking_actor, tmp_path / "two", HARD[:3], videos=4, slots=1)
    recorder, rest = failing(line_pool, seeking_actor, tmp_path / "two", HARD[3:], videos=4, slots=1, done=done)
    results = [*done, *rest]
    recorder.promote_spares(results)
    whole.promote_spares(results)
    assert _names(tmp_path / "two") == _names(tmp_path / "whole")
    # One that was killed after that and before it was noted does it again.
    for result in results:
        result.video = result.video if result in done else None
    after = VideoRecorder(tmp_path / "two" / "videos", line_pool(1).spec, videos=4, camera="front", done=results)
    assert after.promote_spares(results)
    assert _names(tmp_path / "two") == _names(tmp_path / "whole")
    # A finished one has no place left.
    again = VideoRecorder(tmp_path / "two" / "videos", line_pool(1).spec, videos=4, camera="front", done=results)
    assert not again.begin(99)


def _names(directory):
    return sorted(path.name for path in (directory / "videos").iterdir())


def test_places_that_are_taken_in_the_end_are_not_given_away(line_pool, seeking_actor, tmp_path):
    pool = line_pool(1)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=4, camera="front")
    results = run_episodes(pool, seeking_actor(noise=400.0), HARD, watchers=[recorder])
    results += run_episodes(pool, seeking_actor(noise=0.0), [20, 21, 22], watchers=[recorder])
    assert not recorder.promote_spares(results)
    assert sum(result.success for result in results if result.video) == 2
    assert len(_names(tmp_path)) == 4


def test_unknown_camera_lists_the_cameras(make_spec, tmp_path):
    with pytest.raises(UserError, match=r"'frnt'. Did you mean 'front'\?"):
        VideoRecorder(tmp_path, make_spec(), videos=1, camera="frnt")


def test_the_grid_shows_failures_first(line_pool, seeking_actor, tmp_path):
    pool = line_pool(4)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=6, camera="front")
    results = run_episodes(pool, seeking_actor(noise=4.0), SEEDS, watchers=[recorder])
    recorder.write_grid(results)
    filmed = sorted((result for result in results if result.video), key=lambda result: (result.success, result.seed))
    grid = iio.imread(tmp_path / "videos" / "grid.mp4", plugin="pyav")
    assert len(grid) == max(result.steps for result in filmed) + 1
    # Three columns and two rows of six videos; the caption's strip has the outcome's colour, red or green.
    height, width = grid.shape[1] // 2, grid.shape[2] // 3
    for index, result in enumerate(filmed):
        top = index // 3 * height + round(height * (256 + 3) / (256 + CAPTION_HEIGHT + ACTION_HEIGHT))
        red, green = grid[0, top, index % 3 * width + width // 2, :2].astype(int)
        assert (green > red) == result.success


def test_a_single_video_makes_no_grid(line_pool, seeking_actor, tmp_path):
    pool = line_pool(1)
    recorder = VideoRecorder(tmp_path / "videos", pool.spec, videos=1, camera="front")
    results = run_episodes(pool, seeking_actor(noise=0.0), SEEDS[:2], watchers=[recorder])
    recorder.write_grid(results)
    assert not (tmp_path / "videos" / "grid.mp4").exists()
