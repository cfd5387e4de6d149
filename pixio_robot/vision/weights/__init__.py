"""Trained Pixio encoders in every format they come in."""
