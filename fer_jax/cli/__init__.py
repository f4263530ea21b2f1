"""The command line: flags, help, and errors shown as flags."""
