"""Recipes: one file each, all of a paper's numbers and nothing else."""
