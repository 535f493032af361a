"""Programs that train and measure what ``results/`` records; ``make results`` runs them all."""
