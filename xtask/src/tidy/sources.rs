//! What every source file keeps to: a head that says why it is there, a size that a reader can hold, no unfinished work, no switched-off
//! test, and no path of the machine that it was written on.

use super::tokens::find;
use super::tree::{File, Finding, Tree, has_extension, is_test_file};

/// Lines that a file may have, tests aside. STYLE.md: 150 is usual, 350 is a question.
const LINES_MAX: usize = 500;

/// What unfinished work looks like, as tokens, and what to do instead.
const UNFINISHED: &[(&str, &str)] = &[
    ("todo !", "write it, or leave the caller out"),
    ("unimplemented !", "write it, or return an error that names what is missing"),
    ("dbg !", "use tracing, or delete it"),
    ("# [ ignore", "assert today's behaviour and say what is wrong with it"),
];

/// Where this repository was or is worked on. Put together here so that this file does not find itself.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp", "/ref")];

/// Checks every tracked file for machine paths, and every Rust file for the rest.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tree.all().flat_map(|(path, file)| machine_paths(path, file)).collect();
    for (path, file) in tree.rust() {
        findings.extend(head(path, file));
        findings.extend(size(path, file));
        match file.tokens() {
            Ok(tokens) => findings.extend(UNFINISHED.iter().flat_map(|(pattern, mend)| {
                let what = format!("`{}`", pattern.replace(' ', ""));
                find(tokens, pattern).map(move |at| Finding::new(path, tokens[at].line, what.clone(), *mend))
            })),
            Err(error) => findings.push(Finding::new(path, 1, format!("does not read as Rust ({error})"), "see what `cargo check` says")),
        }
    }
    findings
}

fn head(path: &str, file: &File) -> Option<Finding> {
    let headed = file.text.starts_with("//!")
        || file.text.starts_with("#!/") && file.text.lines().nth(1).is_some_and(|line| line.starts_with("//!"));
    (!headed)
        .then(|| Finding::new(path, 1, "no `//!` head", "open with what the file decides or does, its invariants, and why it is this way"))
}

fn size(path: &str, file: &File) -> Option<Finding> {
    if is_test_file(path) {
        return None;
    }
    let lines = lines_before_tests(&file.text);
    let mend = "a file holds one idea: split it by what changes for different reasons";
    (lines > LINES_MAX).then(|| Finding::new(path, LINES_MAX + 1, format!("{lines} lines, {LINES_MAX} at most"), mend))
}

/// The lines up to the test module, which stands at the very end.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(tests).unwrap_or(lines.len())
}

fn machine_paths(path: &str, file: &File) -> Vec<Finding> {
    if has_extension(path, "lock") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for found in MACHINE_PATHS.iter().filter(|machine| line.contains(**machine)) {
            findings.push(Finding::new(
                path,
                index + 1,
                format!("a path of somebody's machine, `{found}`"),
                "write it from the repository's root, or take it from the environment",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;
    use super::Tree;

    fn check(path: &str, text: &str, expected: &Expect) {
        expect_findings(super::check, &[(path, text)], expected);
    }

    #[test]
    fn a_file_opens_with_its_head() {
        check("a/src/lib.rs", "//! Says why.\n", &expect![""]);
        check(
            "a/src/lib.rs",
            "// Not a head.\n",
            &expect![[r#"
                a/src/lib.rs:1: no `//!` head: open with what the file decides or does, its invariants, and why it is this way
            "#]],
        );
    }

    #[test]
    fn a_file_is_500_lines_at_most_and_its_tests_are_aside() {
        let code = format!("//! Long.\n{}", "const _: () = ();\n".repeat(499));
        check("a/src/lib.rs", &format!("{code}#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(300)), &expect![""]);
        check(
            "a/src/lib.rs",
            &format!("{code}const _: () = ();\n"),
            &expect![[r#"
                a/src/lib.rs:501: 501 lines, 500 at most: a file holds one idea: split it by what changes for different reasons
            "#]],
        );
        check("tests/specs/all.rs", &format!("{code}{code}"), &expect![[""]]);
    }

    #[test]
    fn unfinished_work_and_ignored_tests_are_found_in_code_only() {
        check("a/src/lib.rs", "//! A todo!() in words.\nconst A: &str = \"dbg!(1)\";\n", &expect![""]);
        check(
            "a/src/lib.rs",
            "//! Head.\nfn f() { todo!() }\n#[ignore = \"flaky\"]\nfn g() { dbg!(1); }\n",
            &expect![[r#"
                a/src/lib.rs:2: `todo!`: write it, or leave the caller out
                a/src/lib.rs:3: `#[ignore`: assert today's behaviour and say what is wrong with it
                a/src/lib.rs:4: `dbg!`: use tracing, or delete it
            "#]],
        );
    }

    #[test]
    fn a_machine_path_is_found_in_any_file() {
        let line = format!("see {}main\n", super::MACHINE_PATHS[0]);
        let found = super::check(&Tree::of(&[("docs/a.md", &format!("one\n{line}")), ("Cargo.lock", &line)]));
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("docs/a.md:2: a path of somebody's machine"), "{}", found[0]);
    }
}
