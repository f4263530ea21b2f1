"""What the commands share: flags, start-up and error reporting."""
