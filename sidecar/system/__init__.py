"""The operating system's part: child processes that end with this one, their private folders, clocks, randomness."""
