"""Progress, metric files, curves and summaries of a run."""
