"""The environments, models and recorded states of imported robomimic demonstrations."""
