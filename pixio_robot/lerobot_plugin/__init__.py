"""Our policies and environments inside LeRobot's own commands.

    lerobot-eval --policy.discover_packages_path=pixio_robot.lerobot_plugin --policy.type=pixio_robot \
        --policy.checkpoint=runs/mine/policies/flow --env.type=pusht ...
    lerobot-train --env.discover_packages_path=pixio_robot.lerobot_plugin --env.type=pixio_robot --env.task=lift ...

So a policy that learned from a LeRobot data set plays where that was recorded (`lerobot-rollout` on the robot itself),
and LeRobot's policies play here. LeRobot imports the modules of this package, which register themselves.
"""
