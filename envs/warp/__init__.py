"""Tabletop tasks in MuJoCo Warp: many worlds in one simulation, on a GPU if there is one."""
