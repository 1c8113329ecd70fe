"""Results of trainings in; tables and figures out."""
