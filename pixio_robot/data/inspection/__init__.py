"""One page that shows what a demonstration store holds."""
