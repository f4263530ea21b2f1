"""Studies: several recipes and seeds, compared in tables and pictures."""
