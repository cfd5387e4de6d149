"""Which frames are worth learning from: scores of every frame, and a selection of them beside the shards."""
