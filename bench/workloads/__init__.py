"""What is measured: each workload is a list of figures and a function that records them."""
