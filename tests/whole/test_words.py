"""The project's prose has no more odd turns of phrase than that of similar projects (see words.py)."""

import pytest
import words


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (0, "It raises where it fails."),
        (1, "A page is told of it, and PHP says no."),
        (2, "Closed after so many seconds."),
        (3, "It begins anew."),
        (4, "The relay is to wait."),
        (5, "It stays. Who registers nothing is closed."),
    ],
)
def test_each_turn_is_found(turn, text):
    passages = [words.Passage(words.ROOT / "a.py", 1, text)]
    found = {name for name, each in words.Count(passages).found.items() if each}
    assert found == {words.TURNS[turn].name}


@pytest.mark.parametrize("text", ["Print the folder where it is.", "Who may register?", "It is no longer there."])
def test_ordinary_sentences_are_not_counted(text):
    assert not any(words.Count([words.Passage(words.ROOT / "a.py", 1, text)]).found.values())


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        (
            "a.py",
            '"""Who knows."""\n\nx = 1  # who cares, `who`\n# and\n# who\n\ndef test_who_is(): ...\n',
            [1, 3, 4, 7],
        ),
        ("a.md", "# Who\n\n    who = 1\n\n```\nwho\n```\n\nwho\nor | who\n", [1, 9]),
        ("a.js", 'x = "// who";  // who\n/* who\n * it is */\n', [1, 2]),
        ("a.ini", "# who\nwho = 1\n", [1]),
        ("a.html", "<p>who</p><script>who</script>\n\n<p>who</p>\n", [1, 3]),
    ],
)
def test_prose_is_found_in_every_kind_of_file(tmp_path, name, text, lines):
    file = tmp_path / name
    file.write_text(text)
    assert sorted(each.line for each in words.passages(file) if "who" in each.text.lower()) == lines


def test_the_prose_has_no_more_odd_turns_than_that_of_other_projects():
    count = words.count_of([words.ROOT])
    assert count.words > 50_000
    above = [(turn.name, count.found[turn.name]) for turn in count.above_bounds()]
    assert not above, "\n".join(f"{name}\n  " + "\n  ".join(found) for name, found in above)
