"""Former place of `pixio_robot.data.tasks_of`, which docs/python.md named."""

from pixio_robot.data.demos.tasks import tasks_of as tasks_of
