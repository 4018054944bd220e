"""The commit of a relay that runs from a clone is read from Git's files."""

import subprocess

import pytest
from conftest import need

from pushrelay.status.commit import commit_of

WHO = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]


@pytest.fixture
def git(tmp_path):
    def run(*words, folder=tmp_path):
        done = subprocess.run(["git", "-C", folder, *WHO, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        run("init", "-q")
    except FileNotFoundError:
        need(False, "git")
    run("commit", "-q", "--allow-empty", "-m", "first")
    return run


def test_the_commit_of_a_branch_is_found_however_git_keeps_it(git, tmp_path):
    head = git("rev-parse", "HEAD")
    assert commit_of(tmp_path) == head[:7]
    git("pack-refs", "--all")
    assert commit_of(tmp_path) == head[:7]
    git("checkout", "-q", "--detach")
    assert commit_of(tmp_path) == head[:7]


def test_the_commit_of_a_worktree_is_found(git, tmp_path):
    git("worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    git("commit", "-q", "--allow-empty", "-m", "second", folder=tmp_path / "tree")
    assert commit_of(tmp_path / "tree") == git("rev-parse", "other")[:7] != commit_of(tmp_path)


def test_without_a_clone_the_commit_is_not_known(tmp_path):
    assert commit_of(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    assert commit_of(tmp_path) is None
