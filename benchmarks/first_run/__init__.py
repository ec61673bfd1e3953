"""Measures how good the plainest command is on small folders of images.

It is compared with a search by hand, Keras' usual script and timm's defaults: docs/first_run.md.
`python -m benchmarks.first_run --help`.
"""
