"""Which commit a run says it was made by."""

import re
import subprocess

import pytest

from spikedistill import __version__, runfolder


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a package and results beside it; the package believes to lie there."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    (package / "runfolder.py").write_text("one = 1\n")
    (tmp_path / "results" / "page.md").write_text("a page\n")

    def git(*words):
        who = ["-c", "user.name=somebody", "-c", "user.email=some@body"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    monkeypatch.setattr(runfolder, "__file__", str(package / "runfolder.py"))
    assert runfolder.commit() == f"v{__version__}", "outside git"
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_a_commit_is_marked_where_the_code_differs_from_it_and_not_where_results_do(checkout):
    clean = runfolder.commit()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (checkout / "results" / "page.md").write_text("another page\n")
    assert runfolder.commit() == clean
    (checkout / "src" / "package" / "runfolder.py").write_text("one = 2\n")
    assert runfolder.commit() == f"{clean}+"


def test_a_package_that_git_does_not_hold_says_its_version(checkout):
    other = checkout / "src" / "other"
    other.mkdir()
    (other / "runfolder.py").write_text("one = 1\n")
    runfolder.__file__ = str(other / "runfolder.py")
    assert runfolder.commit() == f"v{__version__}"
