"""Programs that run inside guests: single files that need nothing but Python."""
