"""Choosing the frames worth learning from: scores for every frame, and a selection stored beside the shards."""
