"""The tour that `achelous demo` gives: every claim of the foundation, shown with a figure."""
