"""Turns a command line (`sys.argv`) into a `Config`."""
