"""`--mode eval`, and its report."""
