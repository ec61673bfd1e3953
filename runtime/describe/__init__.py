"""`--mode list`, `summary` and `env`."""
