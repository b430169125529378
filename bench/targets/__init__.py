"""What is measured against: this project, the local disk, and peers from Debian."""
