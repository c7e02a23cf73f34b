//! The documents that a reader starts from exist, their relative links lead somewhere, and decisions are numbered without gaps and
//! answer the same four questions.

use super::tree::{Finding, Tree, has_extension};

/// What every clone has.
const REQUIRED: &[&str] = &[
    "README.md",
    "LICENSE",
    "deny.toml",
    ".ci/run",
    "docs/ARCHITECTURE.md",
    "docs/GLOSSARY.md",
    "docs/protocol/session.md",
    "docs/protocol/tunnel.md",
];

/// The parts of an ADR.
const ADR_PARTS: &[&str] = &["## Context", "## Decision", "## Refused", "## Consequences"];

/// Lines that an ADR may have: one page.
const ADR_LINES_MAX: usize = 60;

/// Checks what is required, every Markdown file's links, and docs/adr.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let missing = REQUIRED.iter().filter(|path| !tree.has(path));
    let mut findings: Vec<Finding> = missing.map(|path| Finding::new(path, 1, "missing", "every clone has it: write it")).collect();
    for (path, file) in tree.all().filter(|(path, _)| has_extension(path, "md")) {
        findings.extend(links(tree, path, &file.text));
    }
    findings.extend(decisions(tree));
    findings
}

fn links(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !target.contains(':') && !resolve(path, file).is_some_and(|resolved| tree.has(&resolved)) {
                findings.push(Finding::new(
                    path,
                    index + 1,
                    format!("the link to `{target}` leads nowhere"),
                    "links are relative to the file that they stand in",
                ));
            }
        }
    }
    findings
}

/// `link` as seen from the file `from`, or nothing if it leaves the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, (path, file)) in tree.under("docs/adr/").enumerate() {
        let number = format!("{:04}", index + 1);
        let name = path.trim_start_matches("docs/adr/");
        if !name.starts_with(&format!("{number}-")) {
            findings.push(Finding::new(
                path,
                1,
                format!("the decision after {index:04} is not {number}"),
                "decisions are files `NNNN-words.md`, numbered without gaps",
            ));
        }
        if !file.text.starts_with(&format!("# {}: ", name.get(..4).unwrap_or_default())) {
            findings.push(Finding::new(
                path,
                1,
                "no title with its number",
                format!("open with `# {}: …`", name.get(..4).unwrap_or_default()),
            ));
        }
        for part in ADR_PARTS.iter().filter(|part| !file.text.lines().any(|line| line == **part)) {
            findings.push(Finding::new(
                path,
                1,
                format!("no `{part}`"),
                "a decision says context, decision, what was refused, and consequences",
            ));
        }
        if file.text.lines().count() > ADR_LINES_MAX {
            findings.push(Finding::new(
                path,
                ADR_LINES_MAX + 1,
                "longer than a page",
                "keep the decision; move the rest to where it is used",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::expect_findings;

    fn check(files: &[(&str, &str)], expected: &Expect) {
        let required = super::REQUIRED.iter().filter(|path| files.iter().all(|(given, _)| given != *path)).map(|path| (*path, ""));
        let all: Vec<(&str, &str)> = required.chain(files.iter().copied()).collect();
        expect_findings(super::check, &all, expected);
    }

    const ADR: &str = "# 0001: One\n## Context\n## Decision\n## Refused\n## Consequences\n";

    #[test]
    fn what_a_reader_starts_from_is_required() {
        let mut files = vec![("LICENSE", "")];
        files.extend(super::REQUIRED.iter().filter(|path| !matches!(**path, "LICENSE" | "README.md")).map(|path| (*path, "")));
        expect_findings(
            super::check,
            &files,
            &expect![[r#"
                README.md:1: missing: every clone has it: write it
            "#]],
        );
    }

    #[test]
    fn a_relative_link_leads_somewhere() {
        check(
            &[(
                "docs/a.md",
                "[b](protocol/tunnel.md#opening) [c](../LICENSE) [d](https://x.y) [e](#here) [f](protocol)\n```\n[x](gone)\n```\n",
            )],
            &expect![""],
        );
        check(
            &[("docs/a.md", "[b](tunnel.md) [c](../../LICENSE)")],
            &expect![[r#"
                docs/a.md:1: the link to `../../LICENSE` leads nowhere: links are relative to the file that they stand in
                docs/a.md:1: the link to `tunnel.md` leads nowhere: links are relative to the file that they stand in
            "#]],
        );
    }

    #[test]
    fn decisions_are_numbered_and_complete() {
        check(&[("docs/adr/0001-one.md", ADR)], &expect![""]);
        check(
            &[("docs/adr/0001-one.md", ADR), ("docs/adr/0003-two.md", "# 0003: Two\n## Context\n## Decision\n## Consequences\n")],
            &expect![[r#"
                docs/adr/0003-two.md:1: no `## Refused`: a decision says context, decision, what was refused, and consequences
                docs/adr/0003-two.md:1: the decision after 0001 is not 0002: decisions are files `NNNN-words.md`, numbered without gaps
            "#]],
        );
    }
}
