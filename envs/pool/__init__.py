"""Environments in worker processes: local ones or Ray actors."""
