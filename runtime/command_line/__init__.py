"""From `sys.argv` to a `Config`."""
