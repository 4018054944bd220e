"""Whether a key or secret can be guessed: a copied example, words, or a pattern.

Random characters almost never look like these, so a warning is rarely wrong. A library such as zxcvbn judges passwords
better, but it brings 1.5 MB of dictionaries for a warning about values that should be random.
"""

import re

# Words from examples and placeholders, including ours, and others that people often choose.
_WORDS = """
abcdef abc123 admin another apikey auth battery change changeit changeme characters chat correct default demo dev
develop development dummy example fixme foobar geheim generate hello here horse hs256 hunter2 insecure insert jwt key
keys least letmein local localhost long master mysecret none pass passphrase passwd passwort password phrase please
private prod production push pushkey qwerty qwertz random relay replace sample schluessel secret secrets secure server
shared signing some staging staple string super supersecret test tester testing this todo token value very your
"""
_LONGEST_FIRST = re.compile("|".join(sorted(re.findall(r"\w+", _WORDS), key=len, reverse=True)))
_COMMON_WORDS = {"changeme", "password", "passwort", "secret", "geheim", "12345678", "relay", "test", "example"}
_OF_OUR_DOCS = {
    "2bd806c97f0e00af1a1fc332",
    "9b74c9897bac770ffc029102",
    "5a0c8e1f7b3d4926a1e0c4b7d8f92e35",
    "0f5d2c58a1e04e3c9f6b7ad1c2e8b9d4",
}
FEWEST = 8  # different characters; of 5,000 strings of 20 random hex digits, about one has fewer
FEWEST_AT_ALL = 6  # different characters in anything but a trivial text


def is_guessable(text: str) -> bool:
    """Return whether this is probably an example, words, or a pattern: a reason to warn, but no proof."""
    plain = text.lower()
    if plain in _OF_OUR_DOCS or _repeats(plain) or _counts(plain):
        return True
    rest = re.sub(r"[\W_]", "", _LONGEST_FIRST.sub("", plain))
    return len(set(rest)) < FEWEST


def is_trivial(text: str) -> bool:
    """Return whether this is one common word, possibly followed by digits, or has very few different characters."""
    return len(set(text)) < FEWEST_AT_ALL or re.sub(r"[\W\d_]+$", "", text.lower()) in _COMMON_WORDS


def _repeats(text: str) -> bool:
    """Return whether the text is one piece repeated, such as changeme-changeme-."""
    again = (text + text).find(text, 1)
    return again < len(text) or any(text.startswith(text[:n] * (len(text) // n)) for n in range(1, len(text) // 2 + 1))


def _counts(text: str) -> bool:
    """Return whether most characters follow the previous one in 0123456789, abcdefgh or a row of a keyboard."""
    rows = "01234567890 abcdefghijklmnopqrstuvwxyz qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm"
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    near = sum(pair in rows or pair[::-1] in rows or pair[0] == pair[1] for pair in pairs)
    return near * 2 > len(pairs)
