"""Run a command as a stage of the pipeline: skipped if its result is up to date, locked, continued or replaced."""
