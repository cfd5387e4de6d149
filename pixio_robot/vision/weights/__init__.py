"""Reading and writing Pixio weights in all supported formats."""
