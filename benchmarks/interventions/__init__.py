"""Does acting help? Trainings that fail, and healthy ones, under each treatment."""
