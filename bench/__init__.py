"""Speed, side by side with the alternatives. Run with ``make bench``; results go to ``bench/results/``."""
