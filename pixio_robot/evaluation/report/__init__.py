"""Pages about runs and probes: what they show, and how it is drawn."""
