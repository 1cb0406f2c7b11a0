"""A tick on a device: measured by part, counted, and simulated for GPUs that are not at hand."""
