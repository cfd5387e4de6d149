"""Ingesting footage: decode it in worker processes and pack the frames into shards."""
