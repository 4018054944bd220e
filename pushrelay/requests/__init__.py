"""Requests and messages from pages to PHP, behind the setting request_url."""
