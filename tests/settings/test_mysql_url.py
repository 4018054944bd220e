"""The address of a database: strict, and shown without its password."""

import pytest

from pushrelay.settings.mysql_url import MySQLURL, mysql_url, outbox_url


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("mysql://relay:pw@db.example.com/shop", ("db.example.com", 3306, "relay", "pw", "shop", "", "")),
        ("mariadb://relay@127.0.0.1:3307/shop", ("127.0.0.1", 3307, "relay", "", "shop", "", "")),
        ("mysql://a%40b:p%2Fw%3A%C3%A4@[::1]/my%20shop", ("::1", 3306, "a@b", "p/w:ä", "my shop", "", "")),
        ("mysql://r:p@localhost/s?unix_socket=/run/m.sock", ("localhost", 3306, "r", "p", "s", "/run/m.sock", "")),
        ("mysql://r:p@db/s?ssl_ca=/etc/ca.pem", ("db", 3306, "r", "p", "s", "", "/etc/ca.pem")),
    ],
)
def test_an_address_is_taken_apart(text, fields):
    assert mysql_url(text) == MySQLURL(*fields)
    assert outbox_url(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgres://r:secret@db/s", "begins with mysql://"),
        ("mysql:r:secret@db/s", "begins with mysql://"),
        ("mysql://db/s", "USER:PASSWORD@"),
        ("mysql://:secret@db/s", "USER:PASSWORD@"),
        ("mysql://r:sec/ret@db/s", "%2F for /"),
        ("mysql://r:sec@ret@db/s", "%40 for @"),
        ("mysql://r:sec:ret@db/s", "%3A for :"),
        ("mysql://r:sec%ret@db/s", "%25 for %"),
        ("mysql://r:secret@db", "name of the database"),
        ("mysql://r:secret@db/", "name of the database"),
        ("mysql://r:secret@db/s/t", "name of the database"),
        ("mysql://r:secret@db:0/s", "from 1 to 65535"),
        ("mysql://r:secret@d b/s", "one word of plain ASCII"),
        ("mysql://r:secret@-/s", "host name or an IP address"),
        ("mysql://r:secret@::1/s", "in brackets"),
        ("mysql://r:secret@db/s?ssl=1", "known options are ssl_ca, unix_socket"),
        ("mysql://r:secret@db/s?ssl_ca=ca.pem", "begins with a slash"),
        ("mysql://r:secret@db/s?ssl_ca=", "with a value"),
        ("mysql://r:secret@db/s?unix_socket=/" + "x" * 200, "at most 107 bytes"),
        ("mysql://r:%ff@db/s", "UTF-8"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text, words):
    with pytest.raises(ValueError, match="an address such as mysql://relay:PASSWORD@127.0.0.1/shop: ") as refused:
        outbox_url(text)
    assert words in str(refused.value) and "secret" not in str(refused.value)


def test_an_address_is_shown_without_what_is_secret():
    url = mysql_url("mysql://relay:secret@[::1]:3307/shop?ssl_ca=/etc/ca.pem")
    assert str(url) == "mysql://[::1]:3307/shop" and "secret" not in repr(url)
    assert str(mysql_url("mysql://r:secret@h/shop?unix_socket=/run/m.sock")) == "/run/m.sock, database shop"
    assert outbox_url("") == ""
