"""Long-lived child processes that measure one library each, in an environment of its own."""
