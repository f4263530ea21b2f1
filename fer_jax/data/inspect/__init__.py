"""Reports on what a dataset contains."""
