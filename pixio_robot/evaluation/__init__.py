"""Closed-loop rollouts, success rates with their intervals, videos, and the report."""

from typing import TYPE_CHECKING

from pixio_robot.lazy import lazy_exports

if TYPE_CHECKING:
    from pixio_robot.evaluation.evaluate import check_spec as check_spec
    from pixio_robot.evaluation.rollout import run_episodes as run_episodes
    from pixio_robot.evaluation.statistics import clopper_pearson_interval as clopper_pearson_interval
    from pixio_robot.evaluation.statistics import mcnemar_exact as mcnemar_exact
    from pixio_robot.evaluation.statistics import paired_difference_interval as paired_difference_interval
    from pixio_robot.evaluation.statistics import wilson_interval as wilson_interval

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "evaluate": ["check_spec"],
        "rollout": ["run_episodes"],
        "statistics": ["clopper_pearson_interval", "mcnemar_exact", "paired_difference_interval", "wilson_interval"],
    },
)
