"""Evaluation: scores with confidence intervals, plots and a report page."""
