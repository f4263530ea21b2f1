"""Training: state, step, loop and what stands around them."""
