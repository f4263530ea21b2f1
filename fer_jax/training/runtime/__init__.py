"""Process-wide settings: malloc, compilation cache, signals, profiler."""
