"""Speed, exactness and scale: each module measures figures, and stores them in results/."""
