"""The part of a policy that encodes observations: images or cached features, state and goal."""
