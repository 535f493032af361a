"""What is timed, against whom: ``make bench`` runs everything and records the table."""
