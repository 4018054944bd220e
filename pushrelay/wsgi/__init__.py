"""The relay inside other servers: uWSGI, gunicorn, waitress, Werkzeug; and below a base path."""
