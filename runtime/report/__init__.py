"""`--mode report`: pages about runs."""
