"""Making new demonstration stores from existing ones: filter, split, merge, rename, resample, convert actions."""
