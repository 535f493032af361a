"""Small recorded measurements, each beside the program that makes it; ``make results`` makes them all again."""
