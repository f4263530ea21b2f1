"""Workdirs and data on object stores: `s3://BUCKET/...` and `gs://BUCKET/...`."""
