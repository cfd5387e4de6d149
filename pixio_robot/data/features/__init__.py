"""Features of a frozen encoder, computed once for every frame and cached beside the demonstrations."""
