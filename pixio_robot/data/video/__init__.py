"""Decoding and encoding video with PyAV."""
