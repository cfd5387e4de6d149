"""Our own lightweight MuJoCo tasks."""
