"""The figures as a page of HTML beside those of the paper."""
