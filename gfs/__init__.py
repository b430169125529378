"""What the four programs share: ids, items, messages, frames, client, command line."""
