"""Pixio for robots: see the README."""
