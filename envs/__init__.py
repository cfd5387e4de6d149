"""Simulated tasks, the scripted experts that solve them, and what is recorded from both."""
