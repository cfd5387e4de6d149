"""A policy behind a websocket: a server next to the GPU, a client without torch next to the robot."""
