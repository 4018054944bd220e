"""Who may do what: API keys, origins, tokens, and the site behind auth_url."""
