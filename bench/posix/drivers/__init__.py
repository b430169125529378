"""What is too long for a line of shell: each module is a program run on the target."""
