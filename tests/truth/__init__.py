"""What must be right or refused: a table of branches, their derivatives from elsewhere, and the comparison."""
