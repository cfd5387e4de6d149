"""Encoders other than Pixio, behind the same protocol."""
