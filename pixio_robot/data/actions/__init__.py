"""The columns of actions and states: which of them are poses, representations of rotations, merging several steps."""
