"""Rendering of MuJoCo models, and the appearance of the scene."""
