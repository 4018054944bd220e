"""Whether a secret can be guessed: a copied example, words, a pattern. Random characters never look like it."""

import re

# Words of examples and placeholders, ours among them, and what people type when they must type something.
_WORDS = """
abcdef abc123 admin another apikey auth battery change changeit changeme characters chat correct default demo dev
develop development dummy example fixme foobar geheim generate hello here horse hs256 hunter2 insecure insert jwt key
keys least letmein local localhost long master mysecret none pass passphrase passwd passwort password phrase please
private prod production push pushkey qwerty qwertz random relay replace sample schluessel secret secrets secure server
shared signing some staging staple string super supersecret test tester testing this todo token value very your
"""
_LONGEST_FIRST = re.compile("|".join(sorted(re.findall(r"\w+", _WORDS), key=len, reverse=True)))
_OF_OUR_DOCS = {"2bd806c97f0e00af1a1fc332", "9b74c9897bac770ffc029102"}
FEWEST = 8  # different characters; 20 random hex digits have fewer only once in some 5,000 times


def is_guessable(text: str) -> bool:
    """Return whether this is likely an example, words, or a pattern. It is reason for a warning, and no proof."""
    plain = text.lower()
    if plain in _OF_OUR_DOCS or _repeats(plain) or _counts(plain):
        return True
    rest = re.sub(r"[\W_]", "", _LONGEST_FIRST.sub("", plain))
    return len(set(rest)) < FEWEST


def _repeats(text: str) -> bool:
    """Whether it is the same piece again and again, as changeme-changeme- is."""
    again = (text + text).find(text, 1)
    return again < len(text) or any(text.startswith(text[:n] * (len(text) // n)) for n in range(1, len(text) // 2 + 1))


def _counts(text: str) -> bool:
    """Whether most characters are next to the one before, as in 0123456789 and abcdefgh, or on a keyboard."""
    rows = "01234567890 abcdefghijklmnopqrstuvwxyz qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm"
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    near = sum(pair in rows or pair[::-1] in rows or pair[0] == pair[1] for pair in pairs)
    return near * 2 > len(pairs)
