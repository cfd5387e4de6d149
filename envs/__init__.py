"""Simulated tasks, the scripted experts that solve them, and what is recorded from both.

Importing it registers every task with Gymnasium: `gymnasium.make("envs:pixio_robot/Lift-v0")`.
"""

from envs.tasks import register_gymnasium

register_gymnasium()
