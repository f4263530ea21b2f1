"""A web page to try a trained model; needs the optional extra `demo`."""
