"""Training: one loop for every size. Never imported by sampling."""
