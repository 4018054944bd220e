"""The pages and files that browsers load: the demo page and static/."""
