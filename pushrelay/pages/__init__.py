"""What browsers load: the demo page and the files in static/."""
