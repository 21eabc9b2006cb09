"""What the examples share: binary layers, tables, and a plain training loop."""
