"""POST /push, from the body to the response."""
