"""Ways in which an alert reaches people, one file each."""
