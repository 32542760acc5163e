"""Speed, as ratios between two things measured in turn in one run."""
