"""The benchmarks measure what they say and survive what they measure."""
