"""One builder per dataset, and what it alone needs."""
