"""The parts of `benchmarks/generate.py`, each importing those before it alone: lines, stack, generator, rules, control."""
