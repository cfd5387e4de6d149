"""Compose the settings of a command from YAML files and command-line arguments, and explain them."""
