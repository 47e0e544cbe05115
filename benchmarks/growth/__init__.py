"""How cost grows with size: each thing at four sizes, and the exponent that fits."""
