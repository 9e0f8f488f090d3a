"""Unit tests of check-prose: python3 scripts/test_check_prose.py."""

import subprocess
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

SCRIPT = Path(__file__).with_name("check-prose")
LOADER = SourceFileLoader("check_prose", str(SCRIPT))
SPEC = spec_from_loader("check_prose", LOADER)
check_prose = module_from_spec(SPEC)
sys.modules["check_prose"] = check_prose
sys.dont_write_bytecode = True
LOADER.exec_module(check_prose)

LONG = "word " * 40


class CheckProse(unittest.TestCase):
    def findings(self, markdown: str) -> list[str]:
        return check_prose.check(markdown).findings

    def test_an_unwanted_word_is_reported_with_its_line(self):
        self.assertEqual(self.findings("Title\n\nIt starts\nanew.\n"), ['3: "anew"; write: again'])
        self.assertEqual(len(self.findings("Whoever reads it is told. All the same, mend it.")), 4)
        self.assertEqual(
            self.findings("It takes the command along."), ['1: "takes the command along"; write: end both, bring']
        )

    def test_similar_words_are_allowed(self):
        self.assertEqual(self.findings("An amendment for the tolled newcomer; amended along the way."), [])

    def test_a_sentence_of_more_than_40_words_is_reported(self):
        self.assertEqual(self.findings(LONG.strip() + "."), [])
        self.assertIn("a sentence of 41 words", self.findings(LONG + "more.")[0])
        self.assertEqual(self.findings(f"{LONG.strip()}. The {LONG[5:].strip()}."), [])

    def test_a_line_break_does_not_end_a_sentence_and_a_new_item_does(self):
        half = ("word " * 25).strip()
        self.assertEqual(len(self.findings(f"{half}\n{half}")), 1)
        self.assertEqual(self.findings(f"- {half}\n- {half}"), [])
        self.assertEqual(self.findings(f"| {half} | {half} |"), [])

    def test_code_and_targets_of_links_are_skipped(self):
        self.assertEqual(self.findings(f"```sh\nanew {LONG} {LONG}\n```\n\nRun `mend anew` [here](anew.md)."), [])
        self.assertEqual(self.findings("````md\n```\nanew\n```\n````\n"), [])
        self.assertEqual(check_prose.check("Run `a b c d` [as shown](x.md).").words, 4)

    def test_the_mean_leaves_out_headings_and_tables(self):
        report = check_prose.check(
            "# A heading of words\n\nOne two three. One two three four five.\n\n| cell | cell |\n|---|---|\n"
        )
        self.assertEqual((report.sentences, report.words, report.mean()), (2, 8, 4.0))

    def test_words_in_tables_and_headings_are_checked(self):
        self.assertEqual(len(self.findings("## Whoever\n\n| a | amiss |\n")), 2)

    def test_a_path_that_does_not_exist_is_reported(self):
        with tempfile.TemporaryDirectory() as folder:
            for source in ("server/src/web/view.rs", "target/old.rs"):
                Path(folder, source).parent.mkdir(parents=True)
                Path(folder, source).touch()
            tree = check_prose.Tree(Path(folder))
            for there in ("`server/src/web/`", "`web/view.rs` and `view.rs`", "`a/b`", "`/server/x`", "`1/2`"):
                self.assertEqual(list(tree.missing(there)), [], there)
            table = "| what | where |\n|---|---|\n| a page | `server/src/web/{view,tail}.rs` |\n"
            self.assertEqual(list(tree.missing(table)), ["3: no such path: server/src/web/tail.rs"])
            for wrong in ("server/src/api/", "eb/view.rs", "old.rs", "web/view.rs/x.rs"):
                self.assertEqual(list(tree.missing(f"See `{wrong}`.")), [f"1: no such path: {wrong}"])

    def test_a_finding_fails_the_command(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.md")
            for text, code in (("All is well.\n", 0), ("It is amiss.\n", 1), ("See `gone.rs`.\n", 1)):
                page.write_text(text, encoding="utf-8")
                done = subprocess.run([SCRIPT, folder], capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn("words per sentence", done.stdout)


if __name__ == "__main__":
    unittest.main()
