"""The demonstration store: Zarr arrays, metadata, checksums, validation and migration."""
