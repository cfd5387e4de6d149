"""Networks that several policies share."""
