"""Environments of other packages: Gymnasium, dm_control, and those that run in another Python."""
