"""Shows what libraries make of the same input: the tables of docs/agreement.md."""
