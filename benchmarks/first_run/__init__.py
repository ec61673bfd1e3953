"""How good the plainest command is on small folders of images, beside a search by hand, Keras'
usual script and timm's defaults: docs/first_run.md. `python -m benchmarks.first_run --help`.
"""
