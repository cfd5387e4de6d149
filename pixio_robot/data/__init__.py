"""Frames for pretraining and demonstrations for policies: stored on disk, verified, and loaded in batches."""

from typing import TYPE_CHECKING

from pixio_robot.lazy import lazy_exports

if TYPE_CHECKING:
    from pixio_robot.data.demos.store import DemoStore as DemoStore
    from pixio_robot.data.demos.tasks import tasks_of as tasks_of
    from pixio_robot.data.loading import DemoBatches as DemoBatches
    from pixio_robot.data.loading import DemoWindows as DemoWindows
    from pixio_robot.data.stats import Statistics as Statistics
    from pixio_robot.data.stats import compute_statistics as compute_statistics
    from pixio_robot.data.windows import split_episodes as split_episodes

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "demos.store": ["DemoStore"],
        "demos.tasks": ["tasks_of"],
        "loading": ["DemoBatches", "DemoWindows"],
        "stats": ["Statistics", "compute_statistics"],
        "windows": ["split_episodes"],
    },
)
