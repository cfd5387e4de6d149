"""Tables and figures of many evaluations, and contrasts between them."""
