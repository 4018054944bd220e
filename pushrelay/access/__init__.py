"""Access control: API keys, origins, tokens, cookies, and the site behind auth_url."""
