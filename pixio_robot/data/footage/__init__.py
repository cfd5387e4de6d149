"""Footage to ingest: videos, still images, tar files, LeRobot data sets and demonstrations."""
