"""LeRobot plugin: pixio-robot's policies and environments for LeRobot's own commands.

    lerobot-eval --policy.discover_packages_path=pixio_robot.lerobot_plugin --policy.type=pixio_robot \
        --policy.checkpoint=runs/mine/policies/flow --env.type=pusht ...
    lerobot-train --env.discover_packages_path=pixio_robot.lerobot_plugin --env.type=pixio_robot --env.task=lift ...

A policy trained on a LeRobot data set can thus run where the data was recorded (`lerobot-rollout` on the robot itself),
and LeRobot's policies can be evaluated in our environments. LeRobot imports the modules of this package, which register
themselves.
"""
