"""Scripted experts, the motions they are built from, disturbances of experts, and random play."""
