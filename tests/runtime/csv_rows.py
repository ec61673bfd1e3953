"""Reads the CSV files that the program writes."""

import csv


def csv_rows(path):
    """Returns the rows of a CSV file as dictionaries by the heading's names."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
